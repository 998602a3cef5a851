"""What evaluations of encoders and of decoders do alike: folder, masks, table and metrics.json."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from pydantic import TypeAdapter
from rich.console import Console

from ijepa import config as schema
from ijepa.config import EvaluateConfig
from ijepa.config.trust import check_targets
from ijepa.data.datamodule import DataModule
from ijepa.evaluation import paper, tables, tasks
from ijepa.interop import loading, transformers
from ijepa.masking import Masking
from ijepa.run import build, folders
from ijepa.run_folder import RunFolder
from ijepa.run_folder.checkpoints import step_of
from ijepa.run_folder.config import read_config
from ijepa.run_folder.evaluation import UNFINISHED, evaluation_file, write_evaluation
from ijepa.sweeps.metric import METRICS
from ijepa.util.paths import CONF

RANDOM = "random"
"""``checkpoint=random``: an untrained encoder."""
NOT_IN_FOLDER_NAME = ("checkpoint", "task", "output", "hardware", "baselines", "cache", "trust")
"""Overrides that are not part of the folder's name; all others are, so that no evaluation overwrites another."""


def report(
    config: EvaluateConfig, rows: list[tasks.ModelResults], names: list[str], data: DataModule, folder: Path,
    unit: str = "%, ",
) -> None:  # fmt: skip
    """Prints the table, whose values are in ``unit``, and writes metrics.json."""
    intervals = {row.name: row.intervals(config.seed) for row in rows}
    if any(row.results for row in rows):
        print(f"{config.checkpoint}: {unit}with 95 % intervals")
        Console().print(tables.results_table(rows, config.task, names, intervals))
    shown = paper.columns(rows, names, config.data.source)
    if config.task.paper is not None and shown:
        lines = paper.lines(rows, shown, intervals, config.task.paper.figures)
        Console().print(paper.table(shown, lines, len(rows)))
        paper.write(folder / "paper.md", shown, lines)
        rows[0].files.append(folder / "paper.md")
    written = {
        "config": config.model_dump(),
        "images": {"train": len(data.source.train), "val": len(data.source.val)},
        "results": {row.name: row.values for row in rows},
        "intervals": intervals,
        "details": {row.name: row.details for row in rows},
    }
    described = tasks.plain_custom_specs(config.task) if config.task.with_metrics() else {}
    written |= {METRICS: described} if described else {}
    write_evaluation(evaluation_file(folder), written)
    (folder / UNFINISHED).unlink(missing_ok=True)
    for file in [*(file for row in rows for file in row.files), evaluation_file(folder)]:
        print(f"written  {file}")


def split_seed(path: Path | None, source: str, root: str | None, seed: int) -> int:
    """The run's seed if the images are the run's, so that held-out images stay held out; else ``seed``.

    Args:
        path: of the checkpoint.
        source: data.source.
        root: data.root.
        seed: the configured one.
    """
    written = path and run_folder(path).config
    if written is None or not written.is_file():
        return seed
    loaded = read_config(written)
    if loaded.data.source != source or not _same_folder(loaded.data.root, root):
        return seed
    decoder = loaded.get("decoder")
    return int(loaded.seed if decoder is None or decoder.get("split_seed") is None else decoder.split_seed)


def _same_folder(one: str | None, other: str | None) -> bool:
    """Whether two values of data.root are the same; a typed one may be relative."""
    if one is None or other is None:
        return one is other
    first, second = (Path(each).expanduser().absolute() for each in (one, other))
    return first == second


def mask_sampler(path: Path | None, config: EvaluateConfig, patch_size: int, first: bool) -> Masking | None:
    """The run's mask sampler, else the default one, for this grid; None if the masks do not fit."""
    written = path and run_folder(path).config
    if written is not None and written.is_file():
        chosen = read_config(written).masking
        check_targets({"masking": OmegaConf.to_container(chosen)}, written)
    else:
        chosen = OmegaConf.load(CONF / "masking" / "multiblock.yaml")
        if first:
            print("masks    those of masking=multiblock: the checkpoint does not say what it was trained with")
    try:
        values = TypeAdapter(schema.Masking).validate_python(OmegaConf.to_container(chosen))
        rows, columns = (side // patch_size for side in config.data.image_size)
        return build.sampler_of(values, (rows, columns))
    except ValueError as error:  # ConfigError among them
        if first:
            print(f"masks    skipped: {str(error).splitlines()[0]}")
        return None


def run_folder(path: Path) -> RunFolder:
    """The run folder of a checkpoint, or the folder of a stand-alone file."""
    return RunFolder.of(loading.select_file(path))


def output_folder(config: EvaluateConfig, path: Path | None) -> Path:
    if config.output is not None:
        return Path(config.output).expanduser()
    others = [item for item in HydraConfig.get().overrides.task if item.partition("=")[0] not in NOT_IN_FOLDER_NAME]
    if path is None:
        return RunFolder(Path()).evaluations / folders.slug([RANDOM, task_names(config), *others])
    file, run = loading.select_file(path), run_folder(path)
    if not run.config.is_file():  # a stand-alone file: do not write to its folder
        name = file.parent.name if file.name == transformers.WEIGHTS else f"{file.absolute().parent.name}-{file.stem}"
        return RunFolder(Path()).evaluations / folders.slug([name, task_names(config), *others])
    parts = [task_names(config), *([file.stem] if step_of(file) is not None else []), *others]
    return run.evaluations / folders.slug(parts)


def task_names(config: EvaluateConfig) -> str:
    return "paper" if config.task.paper is not None else "-".join(config.task.chosen())
