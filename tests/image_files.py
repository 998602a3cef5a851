"""Images as files, with known values, and why one of them is unreadable."""

import struct
import zlib

import numpy as np
import pytest
import torch
from helpers import train_config

from ijepa.data import sources
from ijepa.data.files import Files
from ijepa.data.sets import UnreadableError


def noise(*shape, dtype=np.uint16, seed=0):
    """Random values over the whole range of an integer type; floats around 5."""
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.normal(5, 2, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def unit(values):
    """[C, H, W] in 0..1 of unsigned integers [H, W(, C)]."""
    values = values[..., None] if values.ndim == 2 else values
    return torch.from_numpy(values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)).permute(2, 0, 1)


def reason(path, channels, max_pixels=None):
    """Why a file is unreadable, as the user hears it; one line that names it."""
    with pytest.raises(UnreadableError) as caught:
        Files([str(path)], None, channels, max_pixels).read(0)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


def write_png(path, values, exif=b""):
    """16 bits a value, which Pillow cannot write in colour."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *([(b"eXIf", exif)] if exif else []), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    )


def luminance(values):
    return (values * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)


def config(root, *overrides):
    return train_config("data=folder", f"data.root={root}", "data.image_size=32", *overrides)


def source(root, *overrides, seed=0):
    return sources.build(config(root, *overrides).data, seed)
