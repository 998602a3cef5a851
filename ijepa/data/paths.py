"""Many file names in little memory."""

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

ENCODING = "utf-8", "surrogatepass"
"""Of any text, also of file names that are no text."""


class Paths(Sequence[str]):
    """File names in one text: processes that read them share its memory.

    The memory of a list of texts is copied as each is read, because the count of its references is beside it.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        encoded = [path.encode(*ENCODING) for path in paths]
        self._text = b"".join(encoded)
        self._starts = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "Paths": ...

    def __getitem__(self, index: int | slice) -> "str | Paths":
        if isinstance(index, slice):
            return Paths(self[number] for number in range(len(self))[index])
        number = range(len(self))[index]
        return self._text[self._starts[number] : self._starts[number + 1]].decode(*ENCODING)
