"""Says what a data set holds, and what is wrong with it: ``python -m ijepa.data.verify data.root=IMAGES``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from ijepa.cli.loading import loading
from ijepa.config import TRAINING, VerifyConfig
from ijepa.config.checks import parse
from ijepa.util.errors import ConfigError, UserError
from ijepa.util.files import write_json

if TYPE_CHECKING:
    from ijepa.data.inspection import Inspection

NAMED = 3
"""Files of a kind that are named; the output file names all."""


def verify(composed: DictConfig) -> None:
    """Decodes every image once; prints a table of the parts, unreadable files and duplicates.

    Raises:
        UserError: if an image cannot be read, after everything is printed and written.
    """
    with loading("torch"):
        from rich.console import Console
        from rich.table import Table

        from ijepa.data import inspection, sources
        from ijepa.data.workers import worker_count

    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    config = parse(VerifyConfig, OmegaConf.create({k: v for k, v in values.items() if k not in TRAINING}))
    output = None if config.output is None else Path(config.output).expanduser()
    if output is not None and output.exists() and not config.overwrite:
        raise ConfigError("output", config.output, "exists; add overwrite=true, or choose another name")
    if output is not None:
        _check_writable(output, config)
    source = sources.build(config.data, config.seed)
    source.prepare()
    parts: dict[str, Inspection] = {}
    for name, images in (("training", source.train), ("validation", source.val)):
        if len(images):
            print(f"{name}  {len(images)} images", flush=True)
            parts[name] = inspection.inspect(
                images, worker_count(config.data.workers, 1), lambda done: print(f"         {done}", flush=True)
            )
    table = Table("", *parts)
    for title, row in _rows(parts).items():
        table.add_row(title, *row)
    Console().print(table)
    shared = inspection.across(*parts.values()) if len(parts) == 2 else []
    _print_duplicates(parts, shared)
    for note in source.notes:
        print(f"note: {note}")
    if output is not None:
        write_json(output, {
            **{name: {"images": part.images, "kinds": dict(part.kinds), "unreadable": part.unreadable,
                      "duplicates": part.duplicates(), **_moments(part)} for name, part in parts.items()},
            "in_both_parts": shared, "not_images": source.not_images,
        })  # fmt: skip
        print(f"written  {output}")
    unreadable = [message for part in parts.values() for message in part.unreadable]
    if unreadable:
        total = sum(part.images for part in parts.values())
        raise UserError(f"{len(unreadable)} of {total} images cannot be read: {_named(unreadable)}")


def _check_writable(output: Path, config: VerifyConfig) -> None:
    """Raises ConfigError if ``output`` cannot be written, before every image is decoded."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_dir() or not os.access(output.parent, os.W_OK):
            raise OSError(0, "a folder" if output.is_dir() else "its folder is read-only")
    except OSError as error:
        raise ConfigError("output", config.output, f"cannot be written: {error.strerror}") from None


def _rows(parts: "dict[str, Inspection]") -> dict[str, list[str]]:
    """The rows of the table, a value for each part."""
    from ijepa.data.inspection import spread

    columns = []
    for part in parts.values():
        moments = _moments(part)
        columns.append({
            "images": str(part.images),
            "cannot be read": str(len(part.unreadable)),
            "formats and modes": "\n".join(f"{kind}: {count}" for kind, count in part.kinds.most_common()),
            "width (smallest / median / largest)": spread([size[0] for size in part.sizes]) if part.sizes else "",
            "height": spread([size[1] for size in part.sizes]) if part.sizes else "",
            "more than once, the same pixels": str(sum(len(names) - 1 for names in part.duplicates())),
            "mean of each channel": _numbers(moments["mean"]),
            "standard deviation": _numbers(moments["std"]),
        })  # fmt: skip
    return {title: [column[title] for column in columns] for title in columns[0]}


def _moments(part: "Inspection") -> dict[str, list[float]]:
    if part.moments is None:
        return {"mean": [], "std": []}
    return {"mean": part.moments.mean.tolist(), "std": part.moments.std.tolist()}


def _print_duplicates(parts: "dict[str, Inspection]", shared: list[list[str]]) -> None:
    for name, part in parts.items():
        for names in part.duplicates()[:NAMED]:
            print(f"the same pixels ({name}): {_named(names)}")
    if shared:
        pictures = "1 picture is" if len(shared) == 1 else f"{len(shared)} pictures are"
        print(f"{pictures} in both parts, as {_named(shared[0])}")


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
