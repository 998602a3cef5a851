"""Decoded pixels of a small data set, in memory that the data loader processes share."""

import contextlib
import mmap
import os
import struct
import tempfile
import zlib
from multiprocessing import context, reduction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

HEADER = struct.Struct("<BBHHI")
"""Of an image: how it was decoded (0: it is not kept), channels, height, width, checksum."""


class Kept(NamedTuple):
    """``pixels``: [H, W, C] uint8; ``kind``: 1 to 255, how they were decoded."""

    kind: int
    pixels: NDArray[np.uint8]


class KeptImages:
    """Up to ``count`` images, each in an equal share of the memory; larger ones are not kept.

    Any process may add images: whoever reads one finds out by its checksum if it is not complete. Memory is taken as
    images are added. A copy that is sent to a process keeps nothing, unless that process is being started with it.

    Args:
        count: of images.
        size: of the memory, in bytes.
    """

    def __init__(self, count: int, size: int) -> None:
        self.share = size // max(count, 1)
        self._file = -1
        self._memory: mmap.mmap | None = None
        if count and self.share > HEADER.size:
            self._file = _new_file()
            os.ftruncate(self._file, count * self.share)
            self._memory = mmap.mmap(self._file, count * self.share)

    def get(self, index: int) -> Kept | None:
        """An image that is kept, or None."""
        if self._memory is None:
            return None
        start = index * self.share
        kind, channels, height, width, checksum = HEADER.unpack_from(self._memory, start)
        if not kind:
            return None
        pixels = bytearray(self._memory[start + HEADER.size : start + HEADER.size + height * width * channels])
        if zlib.crc32(pixels) != checksum:  # it is being written, or whoever wrote it was killed
            return None
        return Kept(kind, np.frombuffer(pixels, np.uint8).reshape(height, width, channels))

    def fits(self, height: int, width: int, channels: int) -> bool:
        """Whether there is room for an image of this size."""
        room = HEADER.size + height * width * channels <= self.share
        return self._memory is not None and room and max(height, width) < 2**16

    def add(self, index: int, kept: Kept) -> None:
        """Keeps an image, if it fits."""
        height, width, channels = kept.pixels.shape
        if self._memory is None or not self.fits(height, width, channels):
            return
        pixels, start = kept.pixels.tobytes(), index * self.share
        self._memory[start + HEADER.size : start + HEADER.size + len(pixels)] = pixels
        HEADER.pack_into(self._memory, start, kept.kind, channels, height, width, zlib.crc32(pixels))

    def __getstate__(self) -> dict[str, Any]:
        """Without the memory; a process that is being started gets it."""
        shared: Any = None
        if self._memory is not None and context.get_spawning_popen() is not None and hasattr(reduction, "DupFd"):
            shared = reduction.DupFd(self._file)
        return {"share": self.share, "shared": shared, "size": len(self._memory) if self._memory else 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.share, self._file, self._memory = state["share"], -1, None
        if state["shared"] is not None:
            self._file = state["shared"].detach()
            self._memory = mmap.mmap(self._file, state["size"])

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)


def _new_file() -> int:
    """A file without a name; in memory where the system can, whatever the size of its /dev/shm."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("images")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
