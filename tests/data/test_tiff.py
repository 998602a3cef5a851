"""TIFF files: many channels, stacks of pages, compression."""

import numpy as np
import pytest
import tifffile
import torch
from image_files import noise, reason, unit
from PIL import Image

from ijepa.data.decode import decode


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_of_many_channels(tmp_path, planar, byteorder):
    values = noise(12, 6, 5)
    stored = values if planar == "separate" else values.transpose(1, 2, 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="minisblack", planarconfig=planar, byteorder=byteorder)
    assert torch.equal(decode(str(path), 12), unit(values.transpose(1, 2, 0)))
    assert "12 channels cannot become data.channels=3; try data.channels=12" in reason(path, 3)


def test_four_bands_of_8_bit_without_alpha(tmp_path):
    """Red, green, blue and infrared: Pillow would read the fourth as opaque alpha."""
    values, path = noise(6, 5, 4, dtype=np.uint8), tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb", extrasamples=["unspecified"])
    assert torch.equal(decode(str(path), 4), unit(values))
    assert np.array_equal(np.asarray(decode(str(path), 3)), values[..., :3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pages_are_channels_if_they_are_as_many(tmp_path, dtype):
    values, path = noise(12, 6, 5, dtype=dtype), tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="minisblack")
    expected = torch.from_numpy(values.astype(np.float32) / (1 if dtype == np.float32 else np.iinfo(dtype).max))
    torch.testing.assert_close(decode(str(path), 12), expected)
    first = decode(str(path), 1)
    first = torch.from_numpy(np.array(first))[None] / 255 if isinstance(first, Image.Image) else first
    torch.testing.assert_close(first, expected[:1])
    assert "12 pages for data.channels=5; try data.channels=12" in reason(path, 5)


def test_pages_that_are_no_channels(tmp_path):
    path = tmp_path / "a.tif"
    colours = noise(3, 6, 5, 3, dtype=np.uint8)
    tifffile.imwrite(path, colours, photometric="rgb")
    assert np.array_equal(np.asarray(decode(str(path), 3)), colours[0])
    with tifffile.TiffWriter(path) as file:  # an image with its overviews
        for side in (16, 8, 4):
            file.write(noise(side, side), photometric="minisblack")
    assert torch.equal(decode(str(path), 3), unit(noise(16, 16)).expand(3, -1, -1))


def test_white_is_zero(tmp_path):
    values, path = noise(6, 5), tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="miniswhite")
    torch.testing.assert_close(decode(str(path), 1), 1 - unit(values))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(tmp_path, compression):
    path = str(tmp_path / "a.tif")
    for values in (noise(40, 30), noise(40, 30, dtype=np.float32)):
        Image.fromarray(values).save(path, compression=compression)
        expected = unit(values) if values.dtype == np.uint16 else torch.from_numpy(values)[None]
        assert torch.equal(decode(path, 1), expected)
    pages = [Image.fromarray(noise(40, 30, seed=page)) for page in range(5)]
    pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression)
    assert torch.equal(decode(path, 5), torch.cat([unit(np.asarray(page)) for page in pages]))


def test_compression_that_needs_a_package(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(6, 5, 12), photometric="minisblack", planarconfig="contig", compression="zlib")

    def missing(*args, **kwargs):
        raise ValueError("requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", missing)
    assert "pip install imagecodecs" in reason(path, 12)
