"""The cache of decoded images."""

import errno
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import picture, train_config
from PIL import Image

from ijepa.data import image_cache, sources
from ijepa.data.crops import RandomCrop
from ijepa.data.datamodule import Crops, SampleIndex
from ijepa.data.files import Files
from ijepa.data.image_cache import HEADER, SMALLEST_SLOT, ImageCache
from ijepa.data.images import TrainTransform
from ijepa.data.loader import Loader
from ijepa.data.sets import UnreadableError

SIZE = (16, 24)
ROOM = 2**20


def saved(folder, name, height=40, width=30, mode="RGB", **options):
    path = folder / name
    picture(len(name), height, width).convert(mode).save(path, **options)
    return str(path)


def turned(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def crops(files, index=0, seeds=range(6)):
    transform = TrainTransform(SIZE, (0.1, 1.0), (0.75, 4 / 3), flip=True)
    return torch.stack([transform.read(files, index, seed) for seed in seeds])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_crops_of_pictures_are_the_same(tmp_path, mode, channels):
    path = saved(tmp_path, "a.png", mode=mode)
    cached = Files([path], {}, channels, None, cache_bytes=ROOM)
    expected = crops(Files([path], {}, channels, None))
    assert torch.equal(crops(cached), expected)
    assert cached.cache.pixels(0) is not None
    assert torch.equal(crops(cached), expected)


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("sides", [(40, 30), (90, 70)], ids=["small", "decoded also at half its size"])
def test_crops_of_jpeg_files_are_the_same(tmp_path, sides, orientation):
    path = saved(tmp_path, "a.jpg", *sides, exif=turned(orientation), quality=80)
    cached = Files([path], {}, 3, None, cache_bytes=ROOM)
    crops(cached)
    assert cached.cache.pixels(0) is not None
    for seeds in (range(6), range(5, -1, -1)):
        assert torch.equal(crops(cached, seeds=seeds), crops(Files([path], {}, 3, None), seeds=seeds))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_an_image_is_decoded_once(tmp_path, name):
    path = saved(tmp_path, name, 30, 40)
    files = Files([path], {}, 3, None, cache_bytes=ROOM)
    before = crops(files)
    Path(path).unlink()
    assert torch.equal(crops(files), before)
    without = Files([path], {}, 3, None)
    with pytest.raises(UnreadableError):
        crops(without)


def test_what_is_not_cached(tmp_path):
    """Images that are larger than a slot, floats, and damaged files."""
    damaged = tmp_path / "b.jpg"
    Path(saved(tmp_path, "b.jpg", 300, 400)).write_bytes(damaged.read_bytes()[:2000])
    np.save(tmp_path / "c.npy", np.zeros((20, 20, 3), dtype=np.float32))
    paths = [saved(tmp_path, "a.png", 50, 40), str(damaged), str(tmp_path / "c.npy"), saved(tmp_path, "d.png", 40, 40)]
    files = Files(paths, {}, 3, None, cache_bytes=4 * 40 * 40 * 3)
    for index in range(4):
        try:
            crops(files, index)
        except UnreadableError:
            assert index == 1
    assert [files.cache.entry(index) is not None for index in range(4)] == [False, False, False, True]


def test_slots_may_be_too_small_for_any_image():
    cache = ImageCache(1000, 1000 * (SMALLEST_SLOT - 1))
    cache.add(0, 1, np.zeros((1, 1, 1), np.uint8))
    assert cache.entry(0) is None
    assert cache.pixels(0) is None
    assert not cache.fits(1, 1, 1)
    assert ImageCache(0, ROOM).pixels(0) is None


def test_without_a_cache_where_the_system_refuses_it(tmp_path, monkeypatch):
    """As under `ulimit -f` or `ulimit -v`."""
    path = saved(tmp_path, "a.png")

    def refused(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(image_cache.mmap, "mmap", refused)
    files = Files([path], {}, 3, None, cache_bytes=ROOM)
    assert torch.equal(crops(files), crops(Files([path], {}, 3, None)))
    assert files.cache.entry(0) is None


def test_memory_is_taken_as_images_are_added():
    """Not as they are looked for."""
    count, size = 10_000, 2**26
    cache = ImageCache(count, size)
    assert not any(cache.entry(index) for index in range(count))
    assert os.fstat(cache._file).st_blocks * 512 < size // 100
    for index in range(0, count, 2):
        cache.add(index, 1, np.ones((40, 40, 3), np.uint8))
    assert size // 4 < os.fstat(cache._file).st_blocks * 512 < 1.1 * size


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("byte", range(HEADER + 1))
def test_an_image_that_is_not_complete_is_decoded_again(tmp_path, name, byte):
    """Whatever is not written yet: a checksum, the size, or a pixel."""
    files = Files([saved(tmp_path, name)], {}, 3, None, cache_bytes=ROOM)
    before = crops(files)
    memory = files.cache._memory
    assert memory is not None
    memory[byte] ^= 1
    assert files.cache.pixels(0) is None
    assert torch.equal(crops(files), before)
    assert files.cache.pixels(0) is not None


def test_a_header_of_which_only_a_part_is_written():
    cache = ImageCache(1, ROOM)
    assert cache._memory is not None
    assert cache.entry(0) is None
    cache._memory[HEADER - 6] = 1  # the kind; no size, no checksum
    assert cache.entry(0) is None


def _read(files):
    crops(files)


@pytest.mark.integration
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_share_a_cache(tmp_path, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    path = saved(tmp_path, "a.png")
    files = Files([path], {}, 3, None, cache_bytes=ROOM)
    process = multiprocessing.get_context(method).Process(target=_read, args=(files,))
    process.start()
    process.join()
    assert process.exitcode == 0
    Path(path).unlink()
    assert torch.equal(crops(files), crops(files, seeds=range(6)))


def test_a_pickled_copy_has_no_cache(tmp_path):
    files = Files([saved(tmp_path, "a.png")], {}, 3, None, cache_bytes=ROOM)
    before = crops(files)
    copy = pickle.loads(pickle.dumps(files))
    assert copy.cache.entry(0) is None
    assert torch.equal(crops(copy), before)


@pytest.mark.integration
@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_of_a_folder(tmp_path, workers):
    """The second run of a process over the images reads no file, and crops are the same as without the cache."""
    for index in range(8):
        saved(tmp_path, f"{index}.{'png' if index % 2 else 'jpg'}", 20 + index, 30)
    crop = TrainTransform((16, 16), (0.3, 1.0), (0.75, 4 / 3), flip=True)
    keys = [[SampleIndex(0, image, epoch, image) for image in range(8)] for epoch in range(3)]

    def train_images(mib):
        config = train_config("data=folder", f"data.root={tmp_path}", "data.image_size=16", "model.patch_size=4",
                              "data.val_fraction=0", f"data.cache_mib={mib}")  # fmt: skip
        return sources.build(config.data, 0).train

    def epochs(images):
        return torch.stack([batch for _, batch, _ in Loader(Crops(images, crop, 0), keys, workers)])

    cached, without = train_images(1), epochs(train_images(0))
    assert torch.equal(epochs(cached), without)
    for path in tmp_path.iterdir():
        path.unlink()
    assert torch.equal(epochs(cached), without)


def test_crop_sizes_may_differ(tmp_path):
    """A smaller crop of a cached JPEG file is cut from a half of its size, as without the cache."""
    path = saved(tmp_path, "a.jpg", 64, 64)
    files, plain = Files([path], {}, 3, None, cache_bytes=ROOM), Files([path], {}, 3, None)
    for size in ((60, 60), (16, 16), (60, 60)):
        crop = RandomCrop(size, (1, 1), (1, 1))
        assert torch.equal(files.read_crop(0, crop), plain.read_crop(0, crop))
