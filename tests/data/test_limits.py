"""Images that are too large are refused before they are decoded."""

import warnings

import numpy as np
import pytest
import tifffile
from helpers import train_config
from image_files import noise, reason
from PIL import Image

from ijepa.data import sources
from ijepa.data.decode import decode
from ijepa.data.images import EvalTransform, TrainTransform
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


def test_a_folder_of_large_images_is_refused_with_the_reason(tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    config = train_config("data=folder", f"data.root={tmp_path}", "data.max_pixels=500", "data.val_fraction=0")
    with pytest.raises(UserError, match=r"^data.root=.*a.png \(30x20 pixels, more than data.max_pixels=500"):
        sources.build(config.data, 0)
