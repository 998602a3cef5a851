"""Computes images' mean and std and writes a data option: ``python -m ijepa.data.statistics data.root=IMAGES``.

The option, conf/data/NAME.yaml, contains mean, std and all other values that differ from data=folder. A clone writes
it to its own conf/, an installed package to conf/ in the current folder.
"""

import json
import re
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from ijepa.cli.loading import loading
from ijepa.config import TRAINING, StatisticsConfig
from ijepa.config.checks import parse
from ijepa.util import commands
from ijepa.util.errors import ConfigError, UserError
from ijepa.util.files import write_text
from ijepa.util.paths import CONF, INSTALLED, USER_CONF
from ijepa.util.randomness import Stream, seed_of

OPTIONS = USER_CONF / "data"
HEADER = "# Written by python -m ijepa.data.statistics"
VALUES = ("null", "true", "false", "inf", "nan")
"""What Hydra takes for a value, not for an option's name."""
NOT_PART_OF_THE_DATA = ("workers", "mean", "std")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def statistics(composed: DictConfig) -> None:
    """Computes the statistics of the configured training images and writes the option.

    Raises:
        UserError: if no image can be read, or the option exists and must not be replaced.
    """
    with loading("torch"):
        import numpy as np

        from ijepa.data import sources
        from ijepa.data.moments import dataset_moments, other_units
        from ijepa.data.workers import worker_count

    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    values = {name: value for name, value in values.items() if name not in TRAINING}
    config = parse(StatisticsConfig, OmegaConf.create(values))
    path = OPTIONS / f"{_name(config)}.yaml"
    _check_option_name(path, config)
    source = sources.build(config.data.model_copy(update={"max_deviations": None}), config.seed)
    source.prepare()
    train = source.train
    order = np.random.Generator(np.random.PCG64(seed_of(config.seed, Stream.STATISTICS_SAMPLE, 0, 0))).permutation(
        len(train)
    )
    indices = sorted(order[: config.images].tolist())
    print(f"images   {len(indices)} of {len(train)} training images, {config.data.channels} channels", flush=True)
    moments, ranges, errors = dataset_moments(
        train,
        indices,
        worker_count(config.data.workers, 1),
        lambda done: print(f"         {done} of {len(indices)}", flush=True),
    )
    if errors:
        print(f"         {len(errors)} cannot be read and are skipped; the first: {errors[0]}")
    if moments is None:
        raise UserError(f"none of {len(indices)} images can be read; the first: {errors[0]}")
    for line in other_units(ranges):
        print(f"         {line}")
    mean = [float(f"{value:.6g}") for value in moments.mean]
    std = [float(f"{value:.6g}") for value in moments.std]
    constant = [channel for channel, value in enumerate(std) if not value]
    if constant:
        print(f"         channels {constant} have the same value everywhere; their std is written as 1")
    std = [value or 1.0 for value in std]
    write_text(path, _option(values["data"], mean, std, f"{len(indices) - len(errors)} of {len(train)}"))
    config_dir = f"--config-dir {commands.typed(USER_CONF)} " if INSTALLED else ""
    print(f"mean     {mean}\nstd      {std}\nwritten  {path}")
    print(f"next: {commands.command_line('train')} {config_dir}data={path.stem}")


def _name(config: StatisticsConfig) -> str:
    """The option's name: ``name``, or that of data.root's folder, or the source's."""
    if config.name is not None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", config.name):
            raise ConfigError("name", config.name, "use letters, digits, - and _ only")
        if config.name.lower() in VALUES:
            raise ConfigError("name", config.name, f"data={config.name} would be read as a value; choose another name")
        return config.name
    base = Path(config.data.root).expanduser().resolve().name if config.data.root else config.data.source
    name = re.sub(r"[^A-Za-z0-9]+", "_", base).strip("_") or "images"
    return f"{name}_images" if name.lower() in VALUES else name


def _check_option_name(path: Path, config: StatisticsConfig) -> None:
    if path.parent != CONF / "data" and (CONF / "data" / path.name).exists():
        raise ConfigError("name", path.stem, "is a built-in option; choose another name")
    if not path.exists():
        return
    was_written_here = path.read_text(encoding="utf-8").startswith(HEADER)
    if not was_written_here:
        raise ConfigError("name", path.stem, f"{path} exists and was not written by this command; choose another name")
    if not config.overwrite:
        raise ConfigError("name", path.stem, f"{path} exists; add overwrite=true, or choose another name")


def _option(data: dict[str, Any], mean: list[float], std: list[float], images: str) -> str:
    """The option's YAML: the values that differ from data=folder, written as JSON, which is valid YAML."""
    base = compose("statistics", ["data=folder"]).data
    if data["root"] is not None:
        data["root"] = str(Path(data["root"]).expanduser().resolve())
    defaults = OmegaConf.to_container(base)
    assert isinstance(defaults, dict)
    changed = {
        key: value for key, value in data.items() if key not in NOT_PART_OF_THE_DATA and value != defaults.get(key)
    }
    lines = [f"{key}: {_json(value)}" for key, value in changed.items()]
    measured = [f"mean: {json.dumps(mean)}", f"std: {json.dumps(std)}"]
    return "\n".join([f"{HEADER}: {images} training images.", "defaults:", "  - folder", "", *lines, *measured, ""])


def _json(value: Any) -> str:
    """JSON in UTF-8; bytes of file names that are not, which Python decodes as surrogates, are escaped."""
    return LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
