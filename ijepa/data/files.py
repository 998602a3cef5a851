"""Image files, decoded on demand; small ones once."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ijepa.data import workers
from ijepa.data.crops import Box, RandomCrop
from ijepa.data.decode import Picture, decode
from ijepa.data.image_cache import ImageCache
from ijepa.data.jpeg import Jpeg, open_jpeg, resized
from ijepa.data.limits import ValueLimit
from ijepa.data.paths import Paths
from ijepa.data.sets import Labels, UnreadableError

PILLOW, JPEG = 1, 2
"""How cached pixels were decoded: the two differ by rounding."""


class Files:
    """Image files, decoded on demand.

    Args:
        paths: of the files.
        labels: see `Images`.
        channels: see `decode`.
        max_pixels: see `decode`.
        readers: functions from an image's path to its map, by kind of map.
        limit: files with values beyond it are unreadable; None: no limit.
        cache_bytes: memory for decoded 8-bit images, of which crops are read again; see `ImageCache`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Labels,
        channels: int,
        max_pixels: int | None,
        readers: Mapping[str, Callable[[str], Tensor]] | None = None,
        limit: ValueLimit | None = None,
        cache_bytes: int = 0,
    ) -> None:
        self.paths: Sequence[str] = Paths(paths)
        self.labels = labels
        self.channels = channels
        self.max_pixels = max_pixels
        self.readers = dict(readers or {})
        self.limit = limit
        self.cache = ImageCache(len(paths), cache_bytes)

    @property
    def maps(self) -> tuple[str, ...]:
        return tuple(self.readers)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> Picture:
        with self._reading(index):
            return self._decoded(index)

    def read_crop(self, index: int, crop: RandomCrop) -> Tensor:
        """See `ijepa.data.crops.ReadsCrops`: most JPEG files are decoded at the size that the crop needs.

        The crop is the same whether the image is cached or not.
        """
        if getattr(self.read, "__func__", None) is not Files.read:  # replaced by one that may change images
            return crop(self.read(index))
        entry = self.cache.entry(index)
        if entry is None:
            return self._decoded_crop(index, crop)
        if entry.kind == JPEG:
            box = crop.box(entry.height, entry.width)
            pixels = self.cache.pixels(index) if box.scale == 1 else None
            return self._jpeg_crop(index, box, crop) if pixels is None else resized(pixels, box, crop.size)
        pixels = self.cache.pixels(index)
        if pixels is None:
            return self._decoded_crop(index, crop)
        return crop(Image.fromarray(pixels.squeeze(2) if self.channels == 1 else pixels))

    def _decoded_crop(self, index: int, crop: RandomCrop) -> Tensor:
        jpeg = self._opened(index)
        if jpeg is not None:
            return self._jpeg_crop(index, crop.box(jpeg.height, jpeg.width), crop, jpeg)
        picture = self.read(index)
        if isinstance(picture, Image.Image) and self.cache.fits(picture.height, picture.width, self.channels):
            shape = picture.height, picture.width, self.channels
            self.cache.add(index, PILLOW, np.asarray(picture).reshape(shape))
        return crop(picture)

    def _jpeg_crop(self, index: int, box: Box, crop: RandomCrop, jpeg: Jpeg | None = None) -> Tensor:
        jpeg = jpeg or self._opened(index)
        with self._reading(index):
            pixels = None if jpeg is None else jpeg.decoded(box.scale)
        if pixels is None:
            return crop.cut(self.read(index), box)
        if box.scale == 1:
            self.cache.add(index, JPEG, pixels)
        return resized(pixels, box, crop.size)

    def _opened(self, index: int) -> Jpeg | None:
        with self._reading(index):
            return open_jpeg(self.paths[index], self.channels, self.max_pixels)

    @contextlib.contextmanager
    def _reading(self, index: int) -> Iterator[None]:
        try:
            with workers.reading(self.paths[index]):
                yield
        except Exception as error:  # damaged files make decoders raise anything
            raise UnreadableError(f"{self.paths[index]} ({error})") from None

    def _decoded(self, index: int) -> Picture:
        picture = decode(self.paths[index], self.channels, self.max_pixels)
        if self.limit is not None and isinstance(picture, Tensor):
            self.limit.check(picture)
        return picture

    def read_map(self, index: int, kind: str) -> Tensor:
        return self.readers[kind](self.paths[index])

    def fingerprint(self) -> str:
        """Changes with any file's path, size or modification time."""
        settings = f"{self.channels} {self.max_pixels}{self.limit or ''}"
        digest = hashlib.sha256(settings.encode())
        for path in self.paths:
            digest.update(f"{path}\0".encode(errors="surrogateescape"))
            with contextlib.suppress(OSError):  # a file that is gone will be reported as unreadable
                status = Path(path).stat()
                digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()
