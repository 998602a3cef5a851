"""The commands as functions: `pretrain` is ``ijepa train``, `Run.evaluate` is ``ijepa evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from ijepa.api.composing import composed, override
from ijepa.cli import entry
from ijepa.config import COMBINED, TrainConfig
from ijepa.config.trust import package_names, targets
from ijepa.interop.classifier import ImageClassifier
from ijepa.interop.classifier_files import load_classifier
from ijepa.interop.loading import load_encoder
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.run import assembly, build, evaluations, folders, outputs, runs
from ijepa.run_folder import RunFolder
from ijepa.run_folder.config import read_config
from ijepa.run_folder.evaluation import Results, evaluation_file, finite_results, read_evaluation
from ijepa.run_folder.summary import read_summary
from ijepa.util import commands
from ijepa.util.errors import UserError
from ijepa.util.paths import CONF


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation, by its folder; ``trust``: see `ijepa.load_encoder`."""

    folder: Path
    trust: tuple[str, ...] = ()

    @property
    def results(self) -> dict[str, dict[str, float]]:
        """Values by model (``target encoder``, ``random init``, ``raw pixels``) and metric; accuracies are 0..1."""
        return _values(read_evaluation(evaluation_file(self.folder)).results)

    @property
    def classifier(self) -> ImageClassifier:
        """The classifier that was trained.

        Raises:
            UserError: if the task trains none, or several were trained.
        """
        return load_classifier(self.folder, self.trust)


@dataclass(frozen=True)
class Run:
    """A finished run, by its folder: ``ijepa.Run("runs/digits-001")``, or what `pretrain` returns.

    ``trust``: packages whose classes the run may name, see `ijepa.load_encoder`; those that `pretrain` was given.
    """

    folder: Path
    trust: tuple[str, ...] = ()

    def __init__(self, folder: str | Path, trust: str | Sequence[str] = ()) -> None:
        path = Path(folder).expanduser()
        if not RunFolder(path).config.is_file():
            raise UserError(f"{path}: is not the folder of a run")
        object.__setattr__(self, "folder", path)
        object.__setattr__(self, "trust", package_names(trust))

    @property
    def encoder(self) -> PretrainedEncoder:
        """The EMA target encoder, on the CPU, in eval mode."""
        return load_encoder(self.folder, trust=self.trust)

    @property
    def results(self) -> dict[str, dict[str, float]]:
        """What was measured at the end of training, as `Evaluation.results`; {} if nothing was."""
        return _values(finite_results((read_summary(RunFolder(self.folder).summary) or {}).get("results")))

    def evaluate(self, task: str | list[str] = "knn", **overrides: Any) -> Evaluation:
        """Evaluates the encoder, as ``ijepa evaluate checkpoint=RUN_DIR task=TASK`` does.

        Args:
            task: its name, or several.
            overrides: keys of ``ijepa evaluate``: ``baselines=False``, ``**{"data.labels": "labels.csv"}``.

        Raises:
            UserError: when a key or value is wrong, or images and task do not fit together.
        """
        names = [task] if isinstance(task, str) else task
        others = [f"{key}={value}" for key, value in overrides.items() if key not in outputs.NOT_IN_FOLDER_NAME]
        output = overrides.pop("output", None) or RunFolder(self.folder).evaluations / folders.slug(
            ["-".join(names), *others]
        )
        trust = overrides.pop("trust", self.trust)
        items = [
            override("checkpoint", self.folder),
            override("trust", trust),
            f"task=[{','.join(names)}]",
            override("output", output),
        ]
        with composed("evaluate", [*items, *_overrides(overrides)]) as config:
            _validate_one_process(config, "evaluate")
            evaluations.evaluate(config)
        return Evaluation(Path(output).expanduser(), package_names(trust))


def pretrain(data: str | Path, model: str | None = None, run_dir: str | Path | None = None, **overrides: Any) -> Run:
    """Pretrains, as ``ijepa train`` does: checkpoints, health checks, results and pictures are in the run's folder.

    Args:
        data: an option of ``data=``, such as ``"cifar10"``, or a folder of images.
        model: an option of ``model=``, such as ``"vit_small"``; None: the default.
        run_dir: the run's folder; None: a new one under runs/.
        overrides: further keys of ``ijepa train``: ``experiment="small_images"``, ``**{"optimizer.lr": 1e-3}``.

    Raises:
        UserError: when a key or value is wrong, or the run cannot be started.
        InterruptedRunError: when a signal ended it; its checkpoint is written.
    """
    folder = Path(data).expanduser()
    options = sorted(path.stem for path in (CONF / "data").glob("[!_]*.yaml"))
    is_option = isinstance(data, str) and data in options
    if not is_option and not folder.is_dir():
        raise UserError(f"data={data}: no such folder, and no option; try {', '.join(options)}")
    items = [f"data={data}"] if is_option else ["data=folder", override("data.root", folder)]
    items += [] if model is None else [f"model={model}"]
    items += [] if run_dir is None else [override("run_dir", Path(run_dir).expanduser())]
    started = [] if run_dir is None else [Path(run_dir).expanduser()]

    def wire(config: TrainConfig, folder: Path, step: int = 0) -> assembly.Run:
        started.append(folder)
        return build.run(config, folder, step)

    entry.silence_lightning()
    with composed("train", [*items, *_overrides(overrides)]) as config:
        _validate_one_process(config, "train")
        runs.train(config, wire)
    values = OmegaConf.to_container(read_config(RunFolder(started[-1]).newest_config()), resolve=True)
    assert isinstance(values, dict)
    named = targets({str(key): value for key, value in values.items()})  # the caller's own code
    return Run(started[-1], sorted({target.partition(".")[0] for target in named.values()}))


def _values(results: Results) -> dict[str, dict[str, float]]:
    return cast(dict[str, dict[str, float]], results)


def _validate_one_process(config: DictConfig, command: str) -> None:
    """Raises UserError if several processes would run the caller's script."""
    for key in ("devices", "nodes"):
        value = config.hardware[key]
        if str(value) != "1":
            raise UserError(
                f"hardware.{key}={value}: from Python, on one device; type {commands.command_line(command)}"
            )


def _overrides(values: dict[str, Any]) -> list[str]:
    """Overrides for Hydra; an option of a group is a name."""
    groups = {*COMBINED, *(path.name for path in CONF.iterdir() if path.is_dir())}
    return [f"{key}={value}" if key in groups and isinstance(value, str) else override(key, value)
            for key, value in values.items()]  # fmt: skip
