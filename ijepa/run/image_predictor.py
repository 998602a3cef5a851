"""What predict.py computes for each image: a protocol for class probabilities and maps."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ijepa.data.files import Files
from ijepa.data.limits import ValueLimit
from ijepa.evaluation.context import unreadable_reason
from ijepa.evaluation.runtime import Runtime
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.util.rows import Row


class ImagePredictor(ABC):
    """Predicts something for images; each process has one.

    Attributes:
        encoder: computes the features.
        layers: of how many last blocks.
        max_pixels: that of training.
        value_limit: on float images.
        default_output: where predictions are written to by default.
        columns: of the table, between the file and the error, and whether they hold numbers.
        described: what is predicted.
    """

    encoder: PretrainedEncoder
    layers: int
    max_pixels: int | None
    value_limit: ValueLimit
    default_output: str
    columns: dict[str, bool]
    described: str

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def identity(self) -> dict[str, Any]:
        """What a resumed table must have in common with this one."""
        with self.file.open("rb") as opened:
            return {"weights": hashlib.file_digest(opened, "sha256").hexdigest()}

    @abstractmethod
    def table(self, output: Path) -> Path:
        """The table's path; raises ConfigError if ``output`` does not suit."""

    def reason(self, images: Files, index: int) -> str:
        """Why nothing can be predicted for an image."""
        return unreadable_reason(images, index)

    def stale_files(self) -> list[Path]:
        """What an earlier command has left in the place of this one's output, beside the table."""
        return []

    def pictures(self, images: Files) -> list[Path]:
        """Draws some of what was predicted; returns the files."""
        return []

    @abstractmethod
    def dataset(self, images: Files) -> Dataset[Any]:
        """Inputs by index."""

    @staticmethod
    def collate(items: list[Any]) -> Any:
        """A batch of inputs."""
        return default_collate(items)

    @abstractmethod
    def prepare(self, runtime: Runtime, images: Files, root: Path) -> None:
        """Readies networks and names for `predict`, before any of it."""

    @abstractmethod
    def predict(self, batch: Any, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Of a batch with the images ``indices``: which are readable [b], and the values [m, S] of those."""

    @abstractmethod
    def rows(self, values: Tensor, indices: list[int]) -> Iterable[Row]:
        """The values of `columns` for readable images ``indices``, from all processes' `predict`."""


def relative_name(images: Files, index: int, root: Path) -> str:
    """An image's path below ``root``."""
    return Path(os.path.relpath(images.name(index), root)).as_posix()
