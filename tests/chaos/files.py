"""Damaged pictures of every format and damaged weights of every format: read, or refused with one line."""

import contextlib
import functools
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from helpers import picture
from image_files import noise, write_png
from PIL import Image
from weight_files import convert, saved, spec_of

import ijepa
from chaos.damage import damaged
from ijepa.data.crops import RandomCrop
from ijepa.data.decode import decode
from ijepa.data.files import Files
from ijepa.data.sets import UnreadableError
from ijepa.util.errors import UserError

MAX_PIXELS = 10**6
TIFFS = [None, "zlib", "lzw", "packbits", "zstd", "lzma", "jpeg", "webp"]


@functools.cache
def pictures() -> dict[str, bytes]:
    """A picture in each format, by a name that tells it."""
    folder, found = Path(tempfile.mkdtemp()), dict[str, bytes]()
    small = Image.fromarray(noise(48, 64, 3, dtype=np.uint8))
    for kind in ("png", "jpeg", "webp", "bmp", "gif"):
        stream = io.BytesIO()
        small.save(stream, kind)
        found[kind] = stream.getvalue()
    found["jpeg-large"] = jpeg(picture(0, 200, 300))
    found["jpeg-progressive"] = jpeg(small, progressive=True)
    found["jpeg-grey"] = jpeg(small.convert("L"))
    turned = Image.Exif()
    turned[0x0112] = 6
    found["jpeg-turned"] = jpeg(small, exif=turned)
    for channels in (1, 2, 3, 4):
        write_png(folder / "a", noise(40, 48, channels))
        found[f"png16-{channels}"] = (folder / "a").read_bytes()
    for compression in TIFFS:
        eight = compression in ("jpeg", "webp")
        values = noise(48, 64, 3, dtype=np.uint8 if eight else np.uint16)
        tifffile.imwrite(folder / "a.tif", values, photometric="rgb", compression=compression)
        found[f"tiff-{compression}"] = (folder / "a.tif").read_bytes()
    tifffile.imwrite(folder / "a.tif", noise(3, 40, 40, dtype=np.float32), photometric="minisblack")
    found["tiff-stack"] = (folder / "a.tif").read_bytes()
    np.save(folder / "a.npy", noise(40, 40, 3))
    found["npy"] = (folder / "a.npy").read_bytes()
    np.savez_compressed(folder / "a.npz", image=noise(40, 40, 3))
    found["npz"] = (folder / "a.npz").read_bytes()
    return found


def jpeg(image: Image.Image, **options: Any) -> bytes:
    """A picture as a JPEG file."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def picture_case(seed: int, folder: Path) -> None:
    """Decoders may raise anything, which `Files` turns into one line; but return a picture or a crop, or raise."""
    rng = np.random.default_rng(seed)
    name = str(rng.choice(list(pictures())))
    path = folder / "picture"
    path.write_bytes(damaged(pictures()[name], rng))
    with contextlib.suppress(UnreadableError):
        crop = Files([str(path)], {}, 3, MAX_PIXELS).read_crop(0, RandomCrop((32, 48), (0.3, 1), (0.75, 4 / 3)))
        assert crop.shape == (3, 32, 48), name
    try:
        found = decode(str(path), 3, MAX_PIXELS)
    except MemoryError:
        raise
    except Exception:
        return
    size = found.size if isinstance(found, Image.Image) else found.shape[-2:]
    assert 0 < size[0] * size[1] <= MAX_PIXELS, name


@functools.cache
def weights() -> dict[str, bytes]:
    """The same encoder in each format of a single file, by file name."""
    folder = Path(tempfile.mkdtemp())
    file, _ = saved(spec_of("square"), folder)
    for name, kind in (("e.safetensors", "safetensors"), ("t.pth", "timm"), ("m.pth.tar", "meta")):
        convert(file, folder / name, "--to", kind)
    return {name: (folder / name).read_bytes() for name in ("run.ckpt", "e.safetensors", "t.pth", "m.pth.tar")}


def weight_case(seed: int, folder: Path) -> None:
    """`ijepa.load_encoder` gives an encoder that computes, or one line that names the file."""
    rng = np.random.default_rng(seed)
    name = str(rng.choice(list(weights())))
    path = folder / name
    path.write_bytes(damaged(weights()[name], rng))
    problem = ""
    try:
        encoder = ijepa.load_encoder(path, heads=3)
    except UserError as error:
        problem = str(error)
    if problem:
        assert "\n" not in problem, (name, problem)
        assert str(path) in problem, (name, problem)
        return
    height, width = encoder.spec.image_size
    features = encoder(torch.rand(1, encoder.spec.channels, height, width))
    assert features.shape[0] == 1, name
