"""The images of a checkpoint: those of the command line, else of the run that has written it."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from ijepa.config.trust import check_targets
from ijepa.interop import loading
from ijepa.models.pretrained import Spec
from ijepa.run_folder import RunFolder
from ijepa.run_folder.config import read_config
from ijepa.util.errors import ConfigError, UserError


def override_keys() -> set[str]:
    """Keys and groups that the command line sets."""
    return {item.lstrip("+~").partition("=")[0] for item in HydraConfig.get().overrides.task}


def values(composed: dict[str, Any], path: Path, spec: Spec) -> dict[str, Any]:
    """The ``data`` section: of the command line, else of the run; image size and normalisation are the encoder's."""
    given = override_keys()
    written = RunFolder.of(loading.select_file(path)).config
    if "data" in given:
        base = dict(composed)
    elif written.is_file():
        base = dict(read_config(written).data)
        if "data.source" not in given:
            check_targets({"data": {"source": base.get("source")}}, written)
    else:
        raise UserError(f"data is not set, and {path} has no config.yaml next to it; add data=folder data.root=FOLDER")
    for name in ("mean", "std"):
        if f"data.{name}" in given:
            raise ConfigError(f"data.{name}", composed[name], "is stored with the encoder; omit it")
    plain = spec.plain()
    base |= {name: plain[name] for name in ("image_size", "channels", "mean", "std", "eval_crop")}
    for name, value in composed.items():
        if f"data.{name}" in given:
            base[name] = value
        elif isinstance(value, dict):  # e.g. data.scenes.val=...
            changed = {key: item for key, item in value.items() if f"data.{name}.{key}" in given}
            base[name] = {**(base.get(name) or value), **changed}
    return base
