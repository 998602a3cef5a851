"""TIFF files: many channels, stacks of pages, compression."""

import numpy as np
import pytest
import tifffile
import torch
from helpers import picture
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


@pytest.mark.parametrize("compression", ["group3", "group4", None])
def test_pages_of_a_document_are_no_channels(tmp_path, compression):
    """Pages of 1 bit, three of them: the first is read, by Pillow if it is compressed as a fax."""
    pages, path = [Image.fromarray(noise(24, 16, seed=page) > 32767) for page in range(3)], tmp_path / "a.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression)
    assert np.array_equal(np.asarray(decode(str(path), 3)), np.asarray(pages[0].convert("RGB")))


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


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "zstd", "lzma"])
def test_compressed_channels_and_types(tmp_path, compression):
    path = tmp_path / "a.tif"
    for values in (noise(6, 5, 12), noise(6, 5, 12, dtype=np.float32), noise(6, 5, 12).astype(np.int32)):
        tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig", compression=compression)
        expected = unit(values) if values.dtype == np.uint16 else torch.from_numpy(values).float().movedim(-1, 0)
        assert torch.equal(decode(str(path), 12), expected)
    single = noise(6, 5).astype(np.int32)
    tifffile.imwrite(path, single, compression=compression)
    assert torch.equal(decode(str(path), 1), torch.from_numpy(single)[None].float())


@pytest.mark.parametrize("compression", ["jpeg", "webp"])
def test_compressed_pictures(tmp_path, compression):
    image = np.asarray(picture(3, 32, 48))
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", compression=compression)
    found = decode(str(tmp_path / "a.tif"), 3)
    values = np.asarray(found) if isinstance(found, Image.Image) else 255 * found.movedim(0, -1).numpy()
    assert np.abs(values.astype(float) - image).mean() < 8


def test_other_compressions_reach_no_decoder(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(16, 16, 5, dtype=np.float32), photometric="minisblack", planarconfig="contig",
                     compression="lerc")  # fmt: skip
    assert "compressed by LERC, which is not read; try one of NONE, LZW, ADOBE_DEFLATE" in reason(path, 5)


UPRIGHT = {
    1: lambda values: values,
    2: lambda values: values[:, ::-1],
    3: lambda values: values[::-1, ::-1],
    4: lambda values: values[::-1],
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: np.rot90(values.swapaxes(0, 1), 2),
    8: lambda values: np.rot90(values, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["grey", "colour", "alpha", "palette", "deep"])
def test_uncompressed_files_are_turned_upright(tmp_path, kind, orientation):
    """Pillow would map those to memory and turn them with the wrong row length."""
    path, shape = tmp_path / "a.tif", {"colour": (3,), "alpha": (4,)}.get(kind, ())
    values = noise(5, 8, *shape) if kind == "deep" else noise(5, 8, *shape).astype(np.uint8)
    options = {"photometric": "rgb"} if shape else {}
    options |= {"extrasamples": ["unassalpha"]} if kind == "alpha" else {}
    if kind == "palette":
        options = {"photometric": "palette", "colormap": np.stack([np.arange(256) * 257] * 3).astype(np.uint16)}
    tifffile.imwrite(path, values, extratags=[(274, 3, 1, orientation, True)], **options)
    found = decode(str(path), shape[0] if shape else 1)
    expected = UPRIGHT[orientation](values)
    if kind == "deep":
        assert torch.equal(found, unit(np.ascontiguousarray(expected)))
    else:
        np.testing.assert_array_equal(np.asarray(found), expected)
