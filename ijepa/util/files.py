"""Atomic writes: files are written under a temporary name, then renamed."""

import csv
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MIN_FREE_BYTES = 2**20
"""A disk with fewer free bytes counts as full."""
MAX_PREFIX_BYTES = 200
"""Of a temporary name, which must not be longer than a file system allows."""


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A temporary path to write to; it replaces ``path`` on success and is deleted on failure.

    ``durable``: also if the power is cut; it takes milliseconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = os.fsdecode(os.fsencode(f".{path.name}.")[:MAX_PREFIX_BYTES])
    descriptor, name = tempfile.mkstemp(prefix=prefix, dir=path.parent)
    os.close(descriptor)
    try:
        yield Path(name)
        if durable:
            with Path(name).open("rb") as file:
                os.fsync(file.fileno())  # a power cut must not leave the name without the contents
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)  # mkstemp makes files private to the owner
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Writes the rows of a CSV file atomically; names of files may hold any bytes."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows(rows)


def write_safetensors(path: Path, tensors: "dict[str, Tensor]", metadata: dict[str, str]) -> None:
    """Writes ``tensors`` atomically."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise _disk_full_error(path, error) from None


def write_pickle(path: Path, value: Any) -> None:
    """Writes ``value`` with torch.save atomically."""
    import torch

    with replacing(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            raise _disk_full_error(path, error) from None


def _disk_full_error(path: Path, error: Exception) -> Exception:
    """An OSError if a library's ``error`` means that the disk is full; else ``error`` itself."""
    if shutil.disk_usage(path.parent).free < MIN_FREE_BYTES or "No space left" in str(error):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return error
