"""JPEG files, of which crops decode no more than they need."""

import numpy as np
import pytest
import torch
from helpers import picture
from PIL import Image, JpegImagePlugin

from ijepa.data import files as image_files
from ijepa.data import jpeg
from ijepa.data.crops import Box, RandomCrop
from ijepa.data.decode import decode
from ijepa.data.files import Files
from ijepa.data.images import TrainTransform
from ijepa.data.jpeg import open_jpeg, resized
from ijepa.data.sets import Arrays, Subset, UnreadableError, read_crop

SIZE = (32, 48)


def saved(path, height, width, mode="RGB", **options):
    picture(3, height, width).convert(mode).save(path, "JPEG", quality=90, **options)
    return str(path)


def files(*paths, channels=3, max_pixels=None):
    return Files(list(paths), {}, channels, max_pixels)


def by_pillow(path, box, channels=3):
    return RandomCrop(SIZE, (1, 1), (1, 1)).cut(decode(path, channels), box).int()


def opened(path, channels=3):
    found = open_jpeg(path, channels, None)
    assert found is not None
    return found


def part(path, box, channels=3):
    return resized(opened(path, channels).decoded(box.scale), box, SIZE)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"subsampling": 2, "progressive": True}])
@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 3), ("L", 1)])
def test_small_boxes_are_pillow_s(tmp_path, mode, channels, options):
    path = saved(tmp_path / "a.jpg", 75, 101, mode, **options)
    for box in (Box(0, 0, 63, 90), Box(12, 5, 61, 95), Box(70, 90, 5, 11), Box(3, 7, 1, 1)):
        found = part(path, box, channels)
        assert found.dtype == torch.uint8
        assert found.shape == (channels, *SIZE)
        assert (found - by_pillow(path, box, channels)).abs().max() <= 2


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_large_boxes_are_decoded_at_a_part_of_the_size(tmp_path, monkeypatch, scale):
    path = saved(tmp_path / "a.jpg", 37 * scale, 61 * scale + 1)
    box = Box(scale, 2 * scale, SIZE[0] * scale + scale, SIZE[1] * scale, scale)
    sizes, decode_jpeg = [], jpeg.simplejpeg.decode_jpeg
    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", lambda *given, **limits: sizes.append(limits) or
                        decode_jpeg(*given, **limits))  # fmt: skip
    found = part(path, box)
    assert sizes == [{"min_height": 37, "min_width": 62}]
    assert (found - by_pillow(path, box)).float().abs().mean() < 2


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("times", [1, 2])
def test_images_are_upright(tmp_path, orientation, times):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.jpg", 64 * times, 96 * times, exif=exif)
    box = Box(0, 0, 50 * times, 52 * times, times)
    assert (opened(path).height, opened(path).width) == decode(path, 3).size[::-1]
    difference = (part(path, box) - by_pillow(path, box)).float().abs().mean()
    assert difference < (2 if times > 1 else 0.5)


@pytest.mark.parametrize("size", [(64, 96), (75, 101), (150, 223), (301, 407), (999, 1203)])
def test_boxes_have_edges_where_a_decoder_has_pixels(size):
    """So that crops do not depend on the kind of file."""
    torch.manual_seed(0)
    crop, scales = RandomCrop(SIZE, (0.3, 1), (0.75, 4 / 3)), set()
    for _ in range(200):
        box = crop.box(*size)
        scales.add(box.scale)
        assert all(side % box.scale == 0 for side in box[:4])
        assert 0 <= box.top <= box.top + box.height <= size[0]
        assert 0 <= box.left <= box.left + box.width <= size[1]
    assert max(scales) == {64: 1, 75: 2, 150: 4, 301: 8, 999: 8}[size[0]]


def test_an_orientation_in_xmp(tmp_path):
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    path = saved(tmp_path / "a.jpg", 64, 96, xmp=xmp)
    assert decode(path, 3).size == (64, 96)
    assert (opened(path).height, opened(path).width) == (96, 64)


def test_a_crop_is_the_same_part_of_the_image_however_it_is_read(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.jpg", 150, 220)
    transform = TrainTransform(SIZE, (0.3, 1.0), (0.75, 4 / 3), flip=True, jitter=0.3)
    monkeypatch.setattr(image_files, "decode", lambda *_: pytest.fail("was decoded by Pillow"))
    found = [transform.read(Subset(files(path), [0]), 0, seed) for seed in range(20)]
    for seed, crop in enumerate(found):
        assert (crop - transform(decode(path, 3), seed).int()).abs().float().mean() < 2


@pytest.mark.parametrize("kind", ["cmyk", "png", "grey_of_colour", "grey_alpha"])
def test_other_files_are_pillow_s(tmp_path, kind):
    path = str(tmp_path / "a.jpg")
    if kind == "cmyk":
        picture(0, 70, 80).convert("CMYK").save(path, "JPEG")
    elif kind == "png":
        picture(0, 70, 80).save(path, "PNG")
    else:
        saved(path, 70, 80)
    channels = {"grey_of_colour": 1, "grey_alpha": 4}.get(kind, 3)
    transform = TrainTransform(SIZE, (0.3, 1.0), (0.75, 4 / 3), flip=True)
    assert open_jpeg(path, channels, None) is None
    found = transform.read(files(path, channels=channels), 0, 5)
    assert torch.equal(found, transform(decode(path, channels), 5))


def test_damaged_files_are_what_pillow_makes_of_them(tmp_path):
    transform = TrainTransform(SIZE, (0.3, 1.0), (0.75, 4 / 3), flip=True)
    whole = (tmp_path / "a.jpg", saved(tmp_path / "a.jpg", 75, 101))[0].read_bytes()
    cut, tolerated = str(tmp_path / "cut.jpg"), str(tmp_path / "tolerated.jpg")
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableError, match=r"cut\.jpg .*truncated"):
        transform.read(files(cut), 0, 5)
    start = whole.index(b"\xff\xda") + 200  # in the coded pixels
    (tmp_path / "tolerated.jpg").write_bytes(whole[:start] + b"\xff\xd5" + whole[start + 2 :])
    with pytest.raises(ValueError, match=r".+"):
        jpeg.simplejpeg.decode_jpeg((tmp_path / "tolerated.jpg").read_bytes())
    assert torch.equal(transform.read(files(tolerated), 0, 5), transform(decode(tolerated, 3), 5))


def test_limits_hold_before_anything_is_decoded(tmp_path):
    path = saved(tmp_path / "a.jpg", 75, 101)
    transform = TrainTransform(SIZE, (0.3, 1.0), (0.75, 4 / 3), flip=True)
    with pytest.raises(UnreadableError, match=r"a\.jpg \(101x75 pixels, more than data.max_pixels=7574; try"):
        transform.read(files(path, max_pixels=7574), 0, 5)
    with pytest.raises(UnreadableError, match="missing"):
        transform.read(files(str(tmp_path / "missing.jpg")), 0, 5)


@pytest.mark.parametrize("kind", [Files, Subset])
def test_what_another_read_makes_of_images_stays(tmp_path, kind):
    class Inverted(kind):
        def read(self, index):
            return Image.fromarray(255 - np.asarray(super().read(index)))

    path = saved(tmp_path / "a.jpg", 75, 101)
    images = Inverted([path], {}, 3, None) if kind is Files else Inverted(files(path), [0])
    transform = TrainTransform(SIZE, (0.3, 1.0), (0.75, 4 / 3), flip=False)
    wanted = transform(images.read(0), 1)
    assert torch.equal(transform.read(images, 0, 1), wanted)
    replaced = files(path) if kind is Files else Subset(files(path), [0])
    replaced.read = images.read
    assert torch.equal(transform.read(replaced, 0, 1), wanted)


def test_files_of_several_pictures(tmp_path):
    """As telephones write them: the first counts."""
    first, second = (picture(seed, 75, 101) for seed in (1, 2))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    box = Box(0, 0, 60, 90)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.n_frames == 2
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
    found = part(str(tmp_path / "a.jpg"), box)
    assert (found - by_pillow(str(tmp_path / "a.jpg"), box)).abs().max() <= 2


def test_pictures_in_memory_are_not_files():
    crop = RandomCrop(SIZE, (0.5, 1), (1, 1))
    torch.manual_seed(0)
    first = read_crop(Arrays([picture(0, 60, 80)], {}, 3), 0, crop)
    torch.manual_seed(0)
    assert torch.equal(first, crop(picture(0, 60, 80)))
