"""Images of every kind: what comes out of a file, value by value."""

import contextlib
import io
import logging
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from helpers import picture
from image_files import luminance, noise, reason, unit, write_png
from PIL import Image, ImageCms

from benchmarks import decoding
from ijepa.data.decode import convert, decode
from ijepa.util.errors import UserError


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_16_bit_grey_keeps_its_bits(tmp_path, suffix):
    values, path = noise(9, 14), str(tmp_path / f"a.{suffix}")
    Image.fromarray(values).save(path)
    assert torch.equal(decode(path, 1), unit(values))
    assert torch.equal(decode(path, 3), unit(values).expand(3, -1, -1))
    opaque = decode(path, 4)
    assert torch.equal(opaque[:3], decode(path, 3))
    assert torch.equal(opaque[3], torch.ones(9, 14))


def test_16_bit_colours(tmp_path):
    values, png, tiff = noise(9, 14, 3), tmp_path / "a.png", tmp_path / "a.tif"
    write_png(png, values)
    tifffile.imwrite(tiff, values, photometric="rgb")
    for path in (png, tiff):
        assert torch.equal(decode(str(path), 3), unit(values))
        torch.testing.assert_close(decode(str(path), 1), luminance(unit(values)))
        assert torch.equal(decode(str(path), 4), torch.cat([unit(values), torch.ones(1, 9, 14)]))
    eight = Image.fromarray((values >> 8).astype(np.uint8))
    grey = torch.from_numpy(np.asarray(convert(eight, 1)).astype(np.float32)) / 255
    assert (luminance(unit(values))[0] - grey).abs().max() < 1.5 / 255  # as Pillow weights colours


@pytest.mark.parametrize("channels", [2, 4])
def test_16_bit_transparency(tmp_path, channels):
    values = noise(5, 6, channels)
    png, tiff = tmp_path / "a.png", tmp_path / "a.tif"
    write_png(png, values)
    tifffile.imwrite(tiff, values, photometric="rgb" if channels == 4 else "minisblack", extrasamples=["unassalpha"])
    stored = unit(values)
    alpha = stored[-1:]
    flat = stored[:-1] * alpha + (1 - alpha)
    for path in (png, tiff):
        torch.testing.assert_close(decode(str(path), 3), flat.expand(3, -1, -1))
        assert torch.equal(decode(str(path), 4)[3:], alpha)
        torch.testing.assert_close(decode(str(path), 1), flat if channels == 2 else luminance(flat))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_transparent_colour_and_rotation(tmp_path, channels, late):
    """Of a PNG's tRNS and eXIf chunks; the latter also after the image."""
    values, path = noise(5, 6, channels), tmp_path / "a.png"
    write_png(path, values)
    key = struct.pack(f">{channels}H", *values[2, 3])
    exif = Image.Exif()
    exif[0x0112] = 6
    data, turned = path.read_bytes(), chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    data = data[:33] + (b"" if late else turned) + chunk(b"tRNS", key) + data[33:]
    if late:
        end = data.index(b"IEND") - 4
        data = data[:end] + turned + data[end:]
    path.write_bytes(data)
    found = decode(str(path), 4)
    assert found.shape == (4, 6, 5)
    expected = torch.ones(5, 6)
    expected[2, 3] = 0
    assert torch.equal(found[3], torch.rot90(expected, -1))
    assert torch.equal(decode(str(path), 3)[:, 3, 2], torch.ones(3))  # transparent: white
    assert torch.equal(found[0], torch.rot90(unit(values)[0], -1))


def test_damaged_deep_pngs_are_survived(tmp_path):
    """With torchvision's decoder, half of them ended the process."""
    rng, path = np.random.default_rng(0), tmp_path / "a.png"
    for number in range(300):
        write_png(path, noise(11, 17, 1 + number % 4, seed=number))
        data = bytearray(path.read_bytes())
        if number % 3:
            for at in rng.integers(8, len(data), rng.integers(1, 6)):
                data[at] = rng.integers(0, 256)
        else:
            data = data[: rng.integers(30, len(data))]
        path.write_bytes(data)
        with contextlib.suppress(Exception):
            decode(str(path), 3)


@pytest.mark.parametrize("kind", ["EPS", "PPM", "TGA", "PCX", "ICO", "JPEG2000", "PDF"])
def test_no_other_decoder_runs(tmp_path, kind):
    """Whatever the name: some formats would start helper programs."""
    path = tmp_path / "a.jpg"
    picture(1, 16, 16).save(path, kind)
    assert "is damaged, or none of JPEG, PNG, WEBP, BMP, GIF, TIFF" in reason(path, 3)


def animated(path, kind):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "webp" else {}
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=50, **options)


@pytest.mark.parametrize(("kind", "suffix"), [("gif", "gif"), ("webp", "webp"), ("png", "png"), ("tiff", "tif")])
def test_of_animated_files_the_first_frame(tmp_path, kind, suffix):
    path = tmp_path / f"a.{suffix}"
    animated(path, kind)
    assert Image.open(path).n_frames == 3
    assert (np.asarray(decode(str(path), 3)) == (255, 0, 0)).all()
    assert decode(str(path), 1).size == (20, 10)


def test_transparent_gif_and_lossless_webp(tmp_path):
    image = picture(1, 20, 30)
    image.save(tmp_path / "a.webp", lossless=True)
    assert np.array_equal(np.asarray(decode(str(tmp_path / "a.webp"), 3)), np.asarray(image))
    palette = image.quantize(8)
    palette.save(tmp_path / "a.gif", transparency=palette.getpixel((0, 0)))
    assert decode(str(tmp_path / "a.gif"), 3).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, orientation):
    """Tensors are turned as Pillow turns pictures."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    eight = noise(6, 5, 3, dtype=np.uint8)
    Image.fromarray(eight).save(tmp_path / "a.png", exif=exif)
    upright = decode(str(tmp_path / "a.png"), 3)
    deep = eight.astype(np.uint16) * 257
    write_png(tmp_path / "b.png", deep, exif.tobytes().removeprefix(b"Exif\0\0"))
    tifffile.imwrite(tmp_path / "c.tif", deep, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    expected = unit(np.asarray(upright))
    for name in ("b.png", "c.tif"):
        torch.testing.assert_close(decode(str(tmp_path / name), 3), expected)
    Image.fromarray(deep[..., 0]).save(tmp_path / "d.tif", compression="tiff_lzw", tiffinfo={274: orientation})
    torch.testing.assert_close(decode(str(tmp_path / "d.tif"), 1), expected[:1])


def test_colour_profiles_are_left_alone(tmp_path):
    image = picture(2, 20, 30)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image.save(tmp_path / "a.png", icc_profile=profile)
    image.save(tmp_path / "a.tif", icc_profile=profile)
    for name in ("a.png", "a.tif"):
        assert Image.open(tmp_path / name).info["icc_profile"] == profile
        assert np.array_equal(np.asarray(decode(str(tmp_path / name), 3)), np.asarray(image))


def test_the_content_decides_not_the_suffix(tmp_path):
    image, values = picture(3, 20, 30), noise(6, 5)
    image.save(tmp_path / "jpeg.png", "JPEG")
    assert np.array_equal(
        np.asarray(decode(str(tmp_path / "jpeg.png"), 3)), np.asarray(Image.open(tmp_path / "jpeg.png"))
    )
    image.save(tmp_path / "png.npy", "PNG")
    assert np.array_equal(np.asarray(decode(str(tmp_path / "png.npy"), 3)), np.asarray(image))
    tifffile.imwrite(tmp_path / "tiff.jpg", values)
    with (tmp_path / "array.tif").open("wb") as file:
        np.save(file, values)
    with (tmp_path / "archive.gif").open("wb") as file:
        np.savez(file, values)
    for name in ("tiff.jpg", "array.tif", "archive.gif"):
        assert torch.equal(decode(str(tmp_path / name), 1), unit(values))


@pytest.mark.parametrize("kind", ["tif", "deep.png", "npy", "compressed.tif", "stack.tif"])
def test_damaged_files(tmp_path, kind, caplog, capfd):
    path, values = tmp_path / f"a.{kind}", noise(64, 64)
    if kind == "npy":
        np.save(path, values)
    elif kind.endswith("tif"):
        stacked = noise(3, 64, 64) if "stack" in kind else values
        compression = "zlib" if "compressed" in kind else None
        tifffile.imwrite(path, stacked, photometric="minisblack", compression=compression)
    else:
        write_png(path, values[..., None])
    whole = path.read_bytes()
    for length in (0, 3, 9, 40, 200, len(whole) // 2, len(whole) - 60):
        path.write_bytes(whole[:length])
        reason(path, 3 if "stack" in kind else 1)
    path.write_bytes(whole[:4] + bytes(255 - value for value in whole[4:]))
    reason(path, 1)
    assert not any(record.levelno >= logging.WARNING and record.name != "tifffile" for record in caplog.records)
    assert not capfd.readouterr().err


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_formats(tmp_path, suffix):
    original = picture(3, 40, 30)
    original.save(tmp_path / f"a.{suffix}")
    decoded = np.asarray(decode(str(tmp_path / f"a.{suffix}"), 3)).astype(float)
    assert decoded.shape == (40, 30, 3)
    assert np.abs(decoded - np.asarray(original)).mean() < 8  # lossy formats
    grey = np.asarray(decode(str(tmp_path / f"a.{suffix}"), 1))
    assert grey.shape == (40, 30)


def test_modes_come_out_right():
    colours = np.zeros((2, 2, 3), dtype=np.uint8)
    colours[0, 0], colours[0, 1], colours[1, 0] = (255, 0, 0), (0, 128, 0), (10, 20, 200)
    plain = Image.fromarray(colours)
    palette = plain.quantize(4)
    assert np.array_equal(np.asarray(convert(palette, 3)), colours)
    assert np.array_equal(np.asarray(convert(plain.convert("CMYK"), 3)), colours)
    grey = Image.fromarray(np.array([[0, 77], [200, 255]], dtype=np.uint8))
    assert np.array_equal(np.asarray(convert(grey, 3))[..., 1], np.asarray(grey))
    transparent = np.dstack([colours, np.array([[255, 255], [0, 128]], dtype=np.uint8)])
    flat = np.asarray(convert(Image.fromarray(transparent), 3))
    assert flat[0, 0].tolist() == [255, 0, 0]
    assert flat[1, 0].tolist() == [255, 255, 255]  # fully transparent: white, whatever lies beneath
    assert flat[1, 1].tolist() == [127, 127, 127]
    assert np.asarray(convert(Image.fromarray(transparent), 4)).tolist() == transparent.tolist()
    deep = Image.fromarray(np.array([[0, 65535], [32896, 257]], dtype=np.uint16))
    assert torch.equal(convert(deep, 1), torch.tensor([[[0, 65535], [32896, 257]]]) / 65535)  # all 16 bits
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=palette.getpixel((0, 0)))
    assert np.asarray(convert(Image.open(buffer), 3))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.integration
def test_comparison_with_pillow(tmp_path, capsys):
    """`python -m benchmarks.decoding`: a table of outcomes, and a line for each file that is read in another way."""
    write_png(tmp_path / "same.png", noise(8, 6, 3))
    tifffile.imwrite(tmp_path / "signed.tif", noise(8, 6, dtype=np.uint16).astype(np.int16), photometric="minisblack")
    (tmp_path / "damaged.bmp").write_bytes(b"BM" + bytes(40))
    (tmp_path / "notes.txt").write_text("no picture")
    decoding.main([str(tmp_path)])
    said = capsys.readouterr().out
    assert "signed.tif: TIFF, differently. by up to " in said
    rows = {row.split("|")[1].strip(): row.split("|")[2:] for row in said.splitlines() if row.startswith("|")}
    assert [cell.strip() for cell in rows["PNG"]][:2] == ["1", ""]
    assert sum(int(cell) for row in ("PNG", "TIFF", "others") for cell in rows[row] if cell.strip()) == 4
    with pytest.raises(UserError, match="no files"):
        decoding.main([str(tmp_path / "none")])
