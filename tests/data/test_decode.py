"""Images of every kind: what comes out of a file, value by value."""

import logging
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
import torch
from helpers import picture, train_config
from PIL import Image, ImageCms

from ijepa.data import sources
from ijepa.data.decode import convert, decode
from ijepa.data.images import EvalTransform, TrainTransform
from ijepa.data.sets import Files, UnreadableError
from ijepa.run import build
from ijepa.util.errors import UserError


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


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.int32])
def test_floats_and_signed_integers_are_as_they_are(tmp_path, dtype):
    values = noise(7, 8, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.save(tmp_path / "a.npy", values)
    for name in ("a.tif", "a.npy"):
        assert torch.equal(decode(str(tmp_path / name), 1), torch.from_numpy(values.astype(np.float32))[None])
        assert decode(str(tmp_path / name), 3).shape == (3, 7, 8)
        assert "try data.channels=1" in reason(tmp_path / name, 12)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_unsigned_integers_end_at_one(tmp_path, dtype):
    values = noise(7, 8, 5, dtype=dtype)
    values[0, 0, 0] = np.iinfo(dtype).max
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    np.save(tmp_path / "a.npy", values)
    for name in ("a.tif", "a.npy"):
        read = decode(str(tmp_path / name), 5)
        torch.testing.assert_close(read, unit(values))
        assert read.max() == 1


def test_values_that_are_no_numbers(tmp_path):
    for number in (np.nan, np.inf, 1e300):
        values = noise(7, 8, dtype=np.float64)
        values[3, 3] = number
        tifffile.imwrite(tmp_path / "a.tif", values)
        np.save(tmp_path / "a.npy", values)
        for name in ("a.tif", "a.npy"):
            assert "NaN or infinite" in reason(tmp_path / name, 1)
    np.save(tmp_path / "a.npy", noise(4, 4) * 1j)
    assert "complex128" in reason(tmp_path / "a.npy", 1)
    np.save(tmp_path / "a.npy", np.array([[{}]]), allow_pickle=True)
    assert "Python objects" in reason(tmp_path / "a.npy", 1)


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


@pytest.mark.parametrize(
    ("shape", "channels", "order"),
    [
        ((6, 5, 12), 12, (2, 0, 1)),
        ((12, 6, 5), 12, (0, 1, 2)),
        ((12, 6, 12), 12, (2, 0, 1)),  # ambiguous: the last axis
        ((6, 5, 2), 2, (2, 0, 1)),
        ((3, 6, 5), 3, (0, 1, 2)),
        ((6, 5, 4), 4, (2, 0, 1)),
        ((1, 6, 5), 1, (0, 1, 2)),
        ((6, 5, 1), 1, (2, 0, 1)),
    ],
)
def test_axes_of_arrays(tmp_path, shape, channels, order):
    values = noise(*shape)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", np.asfortranarray(values).astype(">u2"))
    expected = unit(values.transpose(order).transpose(1, 2, 0))
    assert torch.equal(decode(str(tmp_path / "a.npy"), channels), expected)
    assert torch.equal(decode(str(tmp_path / "b.npy"), channels), expected)


def test_grey_and_colour_arrays(tmp_path):
    path = str(tmp_path / "a.npy")
    for shape in ((6, 5), (6, 5, 1), (1, 6, 5)):
        np.save(path, noise(*shape, dtype=np.uint8))
        assert torch.equal(decode(path, 3), unit(noise(6, 5, dtype=np.uint8)).expand(3, -1, -1))
    np.save(path, noise(6, 5, 3, dtype=np.uint8))
    torch.testing.assert_close(decode(path, 1), luminance(unit(noise(6, 5, 3, dtype=np.uint8))))


@pytest.mark.parametrize(
    ("shape", "channels", "says"),
    [
        ((6, 50, 12), 3, "try data.channels=6"),
        ((60, 50, 12), 3, "try data.channels=12"),
        ((60, 50, 4), 3, "try data.channels=4"),  # not alpha: nothing says so
        ((5,), 1, "[H, W, C]"),
        ((2, 3, 4, 5), 1, "[H, W, C]"),
        ((0, 5), 1, "empty"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, shape, channels, says):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert says in reason(tmp_path / "a.npy", channels)


def test_archives(tmp_path):
    path, values = tmp_path / "a.npz", noise(6, 5, 12)
    for names in (["one"], ["image", "mask"], ["arr_0", "arr_1"]):
        np.savez_compressed(path, **{name: values if i == 0 else values + 1 for i, name in enumerate(names)})
        assert torch.equal(decode(str(path), 12), unit(values))
    np.savez(path, left=values, right=values)
    assert "contains 2 arrays (left, right); name the image's array 'image'" in reason(path, 12)
    path.write_bytes(path.read_bytes()[:200])
    reason(path, 12)


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


def test_which_files_are_images(tmp_path):
    for name in ("a.GIF", "b.Npy", "c.npz", "d.TIFF"):
        np.save((tmp_path / name).open("wb"), noise(6, 5))
    (tmp_path / "e.csv").write_text("")
    config = train_config("data=folder", f"data.root={tmp_path}", "data.val_fraction=0")
    found = sources.build(config.data, 0)
    assert (len(found.train), found.not_images) == (4, [str(tmp_path / "e.csv")])


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


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 5), (1, 20_000), (20_000, 1)])
@pytest.mark.parametrize("tensor", [False, True])
def test_tiny_and_thin_images(size, tensor):
    values = np.full((*size, 3), 255, np.uint8)
    image = torch.ones(12, *size) if tensor else Image.fromarray(values)
    crop = TrainTransform((32, 48), (0.3, 1.0), (0.75, 4 / 3), flip=True)(image, 3)
    assert crop.shape == ((12 if tensor else 3), 32, 48)
    assert crop.dtype == (torch.float32 if tensor else torch.uint8)
    view = EvalTransform((32, 48), crop=0.875)(image)
    assert view.shape == ((12 if tensor else 3), 32, 48)
    assert torch.allclose(view, torch.ones(()))


def test_of_a_long_image_the_middle(tmp_path):
    """The same as from the whole, up to rounding, without a resized whole."""
    ramp = torch.linspace(0, 1, 4000).expand(1, 40, -1)
    whole = torch.nn.functional.interpolate(ramp[None], (20, 2000), mode="bilinear", antialias=True)[0]
    assert (EvalTransform((20, 20))(ramp) - whole[..., 990:1010]).abs().max() < 1e-3


def test_tensors_are_transformed_like_pictures():
    image = picture(4, 60, 80)
    values = unit(np.asarray(image))
    for crop in (1.0, 0.8):
        view, same = (EvalTransform((32, 48), crop)(one) for one in (image, values))
        assert (view - same).abs().max() < 2 / 255
    transform = TrainTransform((32, 48), (0.3, 1.0), (0.75, 4 / 3), flip=True)
    assert (transform(image, 5) / 255 - transform(values, 5)).abs().max() < 2 / 255
    assert torch.equal(transform(values, 5), transform(values, 5))


def test_an_encoder_s_transform_takes_what_decode_yields(tmp_path):
    values = noise(40, 50)
    deep = Image.fromarray(values)
    deep.save(tmp_path / "a.png")
    grey = EvalTransform((16, 16), channels=1)(decode(str(tmp_path / "a.png"), 1))
    assert torch.equal(EvalTransform((16, 16), channels=1)(deep), grey)
    torch.testing.assert_close(EvalTransform((16, 16), channels=3)(unit(values)), grey.expand(3, -1, -1))
    with pytest.raises(ValueError, match=r"5 channels cannot become data.channels=12"):
        EvalTransform((16, 16), channels=12)(torch.zeros(5, 40, 50))
    with pytest.raises(ValueError, match=r"data.channels=12; try 1, 3 or 4"):
        EvalTransform((16, 16), channels=12)(picture(0, 40, 50))


def batch_of(root, folder):
    overrides = (
        "data.image_size=32", "model.patch_size=4", "data.workers=0", "data.batch_size=8", "data.val_fraction=0",
        "schedule.max_steps=2", "schedule.warmup_steps=0", "hardware=cpu",
    )  # fmt: skip
    run = build.run(train_config("data=folder", f"data.root={root}", *overrides), folder)
    return run, next(iter(run.data.train_dataloader()))


def test_batches_of_8_and_of_more_bits(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for i in range(4):
        Image.fromarray(noise(20, 30, 3, dtype=np.uint8, seed=i)).save(root / f"{i}.png")
    run, eight = batch_of(root, tmp_path)
    assert eight.images.dtype == torch.uint8
    torch.manual_seed(0)
    loss = run.module.training_step(eight, 0)["loss"]
    same = run.module.training_step(eight._replace(images=eight.images.float() / 255), 0)["loss"]
    assert torch.equal(loss, same)
    for i in range(4, 8):
        np.save(root / f"{i}.npy", noise(20, 30, 3, dtype=np.uint8, seed=i))
    _, mixed = batch_of(root, tmp_path)
    assert mixed.images.dtype == torch.float32
    assert 0 <= mixed.images.min() < mixed.images.max() <= 1
    assert mixed.images.shape == (8, 3, 32, 32)
    assert not mixed.unreadable


def test_statistics_are_named_where_they_are_missing(tmp_path):
    from ijepa.config.checks import check

    with pytest.raises(UserError, match=r"^data.mean=.*needs 12 values.*python -m ijepa.data.statistics"):
        check(train_config("data=folder", f"data.root={tmp_path}", "data.channels=12"))
    with pytest.raises(UserError, match=r"^data.channels=0: "):
        train_config("data.channels=0")
    with pytest.raises(UserError, match=r"^data.channels=12: .*try 1, 3 or 4"):
        sources.build(train_config("data=digits", "data.channels=12").data, 0)
