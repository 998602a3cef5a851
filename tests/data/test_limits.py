"""Images that are too large are refused before they are decoded."""

import contextlib
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from helpers import train_config
from image_files import noise, reason
from PIL import Image

from ijepa.data import sources
from ijepa.data.decode import decode
from ijepa.data.images import EvalTransform, TrainTransform
from ijepa.data.limits import ValueLimit
from ijepa.data.sets import UnreadableError
from ijepa.util.errors import UserError


@pytest.mark.parametrize(
    "kind", ["png", "jpg", "gif", "webp", "deep.png", "tif", "deep.tif", "stack.tif", "npy", "npz"]
)
def test_large_images_are_refused_before_they_are_decoded(tmp_path, kind, monkeypatch):
    path, channels = tmp_path / f"a.{kind}", 2 if kind == "stack.tif" else 1
    deep = noise(40, 50)
    if kind == "npy":
        np.save(path, deep)
    elif kind == "npz":
        np.savez(path, deep)
    elif kind == "stack.tif":
        tifffile.imwrite(path, noise(2, 40, 50), photometric="minisblack")
    else:
        Image.fromarray(deep if "deep" in kind else deep.astype(np.uint8)).save(path)
    decode(str(path), channels, 2000)
    for owner, name in ((Image.Image, "load"), (tifffile.TiffPage, "asarray"), (np.lib.npyio.NpzFile, "__getitem__")):
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: pytest.fail("decoded"))
    text = reason(path, channels, 1999)
    assert "50x40 pixels, more than data.max_pixels=1999; try data.max_pixels=2000" in text


def test_a_hundred_megapixels(tmp_path):
    """Without a word from Pillow, whose own limits lie at 89 and 179 megapixels; they are left as they were."""
    path = tmp_path / "a.png"
    Image.new("1", (10_000, 20_000)).save(path)
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "data.max_pixels=100000000;" in reason(path, 1, 100_000_000)
        image = decode(str(path), 1, None)
        assert image.size == (10_000, 20_000)
        assert TrainTransform((8, 8), (0.9, 1.0), (0.5, 0.6), flip=True)(image, 0).shape == (1, 8, 8)
        assert EvalTransform((8, 8))(image).shape == (1, 8, 8)
    assert before == Image.MAX_IMAGE_PIXELS is not None
    assert train_config("data=folder", "data.root=X").data.max_pixels == 100_000_000
    assert train_config("data.max_pixels=null").data.max_pixels is None
    with pytest.raises(UserError, match=r"^data.max_pixels=0: .*greater"):
        train_config("data.max_pixels=0")


@pytest.mark.parametrize("kind", ["npy", "npz", "tif", "stack.tif"])
def test_the_limit_is_one_of_bytes(tmp_path, kind, monkeypatch):
    """Twelve channels of 8 bytes take more than a picture; they are refused before they are decoded, too."""
    path, values = tmp_path / f"a.{kind}", np.zeros((40, 50, 12))
    if kind == "npy":
        np.save(path, values)
    elif kind == "npz":
        np.savez_compressed(path, values)
    else:
        stacked = {"photometric": "minisblack", "planarconfig": "contig"} if kind == "tif" else {}
        tifffile.imwrite(path, values if kind == "tif" else values.transpose(2, 0, 1), **stacked)
    decode(str(path), 12, 24_000)
    for owner, name in ((tifffile.TiffPage, "asarray"), (np.lib.npyio.NpzFile, "__getitem__")):
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: pytest.fail("decoded"))
    text = reason(path, 12, 23_999)
    assert "50x40 pixels of 96 bytes, more than data.max_pixels=23999; try data.max_pixels=24000, or null" in text


def test_tiffs_that_unfold(tmp_path):
    """A page that stores far more than its pixels, and a file of very many pages."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(32, 32))
    with tifffile.TiffFile(path) as opened:
        at = opened.pages[0].tags["StripByteCounts"].valueoffset
    data = bytearray(path.read_bytes())
    data[at : at + 4] = (300_000_000).to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(data)
        file.truncate(300_100_000)  # takes no space on the disk
    assert "stores 300000000 bytes for 2048 bytes of pixels; it is damaged" in reason(path, 1)
    with tifffile.TiffWriter(path) as writer:
        for _ in range(1500):
            writer.write(np.zeros((2, 2), np.uint16), contiguous=False)
    assert decode(str(path), 1, None).shape == (1, 2, 2)
    assert "1000 pages or more, too many for data.channels=7" in reason(path, 7)


def test_small_pages_in_large_tiles_are_read(tmp_path):
    """Tiles at the edge are padded, as in chips of satellite images."""
    values = noise(64, 64, 13)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig", tile=(256, 256))
    assert decode(str(tmp_path / "a.tif"), 13).shape == (13, 64, 64)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert "not a regular file" in reason(tmp_path / "a.png", 3)


def test_a_folder_of_large_images_is_refused_with_the_reason(tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    config = train_config("data=folder", f"data.root={tmp_path}", "data.max_pixels=500", "data.val_fraction=0")
    with pytest.raises(UserError, match=r"^data.root=.*a.png \(30x20 pixels, more than data.max_pixels=500"):
        sources.build(config.data, 0)


def test_the_limit_of_an_encoder():
    """Also without data.max_deviations: beyond 1e15, sums of squares overflow."""
    image = torch.zeros(1, 4, 4)
    image[0, 1, 1] = 1e7
    for deviations, value, fits in ((1e4, 1e7, False), (1e9, 1e7, True), (None, 1e7, True), (None, 1e20, False),
                                    (1e30, 1e38, False)):  # fmt: skip
        image[0, 1, 1] = value
        limit = ValueLimit.of_encoder([0.5], [0.2], deviations)
        with contextlib.nullcontext() if fits else pytest.raises(ValueError, match="convert it to the units of train"):
            limit.check(image)


def test_extreme_values_are_found_when_they_are_read(tmp_path):
    """A few finite numbers spoil the weights as NaN does: the file is left out, and named."""
    for name, value in (("usual", 0.0), ("extreme", 1e6), ("odd", -3e4)):
        values = np.random.default_rng(0).normal(5, 2, (30, 40)).astype(np.float32)
        values[3, 4] += value
        np.save(tmp_path / f"{name}.npy", values)
    keys = ["data=folder", f"data.root={tmp_path}", "data.val_fraction=0", "data.channels=1", "data.mean=[5]"]
    source = sources.build(train_config(*keys, "data.std=[2]").data, 0)
    faults = {}
    for index in range(3):
        try:
            source.train.read(index)
        except UnreadableError as error:
            faults[Path(source.train.name(index)).stem] = str(error)
    assert faults.keys() == {"extreme", "odd"}
    assert "values from -3e+04 to " in faults["odd"]
    assert "up to 1.5e+04 standard deviations from data.mean, above data.max_deviations=10000; " in faults["odd"]
    for limit in ("null", "1e9"):
        unlimited = sources.build(train_config(*keys, "data.std=[2]", f"data.max_deviations={limit}").data, 0)
        assert all(unlimited.train.read(index) is not None for index in range(3))
    with pytest.raises(UserError, match=r"none of its 3 .*compute data.mean and data.std of these images"):
        sources.build(train_config(*keys, "data.std=[1e-5]").data, 0)
