"""Decoded images of a small data set, in memory that the data loader processes share."""

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

FIELDS = struct.Struct("<BBHH")
CHECKSUMS = struct.Struct("<II")
HEADER = CHECKSUMS.size + FIELDS.size
"""Bytes of an image's header: checksums of the fields of `Entry` and of the pixels, and these fields."""
SMALLEST_SLOT = 1024
"""Bytes; with less for each image, none is cached."""


class Entry(NamedTuple):
    """How an image was decoded (``kind``, 1 to 255), and its size."""

    kind: int
    channels: int
    height: int
    width: int


class ImageCache:
    """A slot of the same size for each of ``count`` images; images that are larger are not cached.

    Any process may add images; checksums detect incomplete ones. Memory is taken as images are added; where the
    system refuses it, nothing is cached. A pickled copy has no cache, unless it is sent to a process as that starts.

    Args:
        count: of images.
        size: of all slots, in bytes.
    """

    def __init__(self, count: int, size: int) -> None:
        self.slot = size // max(count, 1)
        self._count = count
        self._file = -1
        self._memory: mmap.mmap | None = None
        if count and self.slot >= SMALLEST_SLOT:
            length = count * (HEADER + self.slot)  # all headers, then all slots
            with contextlib.suppress(OSError):  # beyond a limit of the system: nothing is cached
                self._file = _new_file()
                os.ftruncate(self._file, length)
                self._memory = mmap.mmap(self._file, length)

    def entry(self, index: int) -> Entry | None:
        """What is known of an image without reading its pixels; None: it is not cached."""
        if self._memory is None:
            return None
        header = self._memory[index * HEADER : (index + 1) * HEADER]
        fields = header[CHECKSUMS.size :]
        complete = zlib.crc32(fields) == CHECKSUMS.unpack_from(header)[0]
        return Entry(*FIELDS.unpack(fields)) if complete else None

    def pixels(self, index: int) -> NDArray[np.uint8] | None:
        """A copy of an image [H, W, C]; None if it is not cached."""
        entry = self.entry(index)
        if entry is None:
            return None
        assert self._memory is not None
        start = self._start(index)
        found = bytearray(self._memory[start : start + entry.height * entry.width * entry.channels])
        if zlib.crc32(found) != CHECKSUMS.unpack_from(self._memory, index * HEADER)[1]:
            return None
        return np.frombuffer(found, np.uint8).reshape(entry.height, entry.width, entry.channels)

    def fits(self, height: int, width: int, channels: int) -> bool:
        """Whether there is room for an image of this size."""
        return self._memory is not None and height * width * channels <= self.slot and max(height, width) < 2**16

    def add(self, index: int, kind: int, pixels: NDArray[np.uint8]) -> None:
        """Caches an image [H, W, C], if it fits."""
        height, width, channels = pixels.shape
        if self._memory is None or not self.fits(height, width, channels):
            return
        content, start = pixels.tobytes(), self._start(index)
        self._memory[start : start + len(content)] = content
        fields = FIELDS.pack(kind, channels, height, width)
        header = CHECKSUMS.pack(zlib.crc32(fields), zlib.crc32(content)) + fields
        self._memory[index * HEADER : (index + 1) * HEADER] = header

    def _start(self, index: int) -> int:
        return self._count * HEADER + index * self.slot

    def __getstate__(self) -> dict[str, Any]:
        """Without the memory, unless a process is being started."""
        file: Any = None
        if self._memory is not None and context.get_spawning_popen() is not None and hasattr(reduction, "DupFd"):
            file = reduction.DupFd(self._file)
        return {"slot": self.slot, "count": self._count, "file": file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.slot, self._count, self._file, self._memory = state["slot"], state["count"], -1, None
        if state["file"] is not None:
            self._file = state["file"].detach()
            self._memory = mmap.mmap(self._file, self._count * (HEADER + self.slot))

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
