"""Decoded images that are kept in memory."""

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import picture, train_config
from PIL import Image

from ijepa.data import sources
from ijepa.data.crops import RandomCrop
from ijepa.data.datamodule import Crops, SampleIndex
from ijepa.data.files import Files
from ijepa.data.images import TrainTransform
from ijepa.data.kept import HEADER, Kept, KeptImages
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
    assert torch.equal(crops(Files([path], {}, channels, None, keep=ROOM)), crops(Files([path], {}, channels, None)))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("sides", [(40, 30), (90, 70)], ids=["small", "decoded also at half its size"])
def test_crops_of_jpeg_files_are_the_same(tmp_path, sides, orientation):
    path = saved(tmp_path, "a.jpg", *sides, exif=turned(orientation), quality=80)
    kept = Files([path], {}, 3, None, keep=ROOM)
    crops(kept)
    assert kept.kept.get(0) is not None
    for seeds in (range(6), range(5, -1, -1)):
        assert torch.equal(crops(kept, seeds=seeds), crops(Files([path], {}, 3, None), seeds=seeds))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_an_image_is_decoded_once(tmp_path, name):
    path = saved(tmp_path, name, 30, 40)
    files = Files([path], {}, 3, None, keep=ROOM)
    before = crops(files)
    Path(path).unlink()
    assert torch.equal(crops(files), before)
    without = Files([path], {}, 3, None)
    with pytest.raises(UnreadableError):
        crops(without)


def test_what_is_not_kept(tmp_path):
    """Images that are too large for their share, floats, and damaged files."""
    damaged = tmp_path / "b.jpg"
    Path(saved(tmp_path, "b.jpg", 300, 400)).write_bytes(damaged.read_bytes()[:2000])
    np.save(tmp_path / "c.npy", np.zeros((20, 20, 3), dtype=np.float32))
    paths = [saved(tmp_path, "a.png", 50, 40), str(damaged), str(tmp_path / "c.npy"), saved(tmp_path, "d.png", 40, 40)]
    files = Files(paths, {}, 3, None, keep=4 * (40 * 40 * 3 + HEADER.size))
    for index in range(4):
        try:
            crops(files, index)
        except UnreadableError:
            assert index == 1
    assert [files.kept.get(index) is not None for index in range(4)] == [False, False, False, True]


def test_no_memory_is_taken_where_no_image_fits():
    kept = KeptImages(2**20, 2**20)
    kept.add(0, Kept(1, np.zeros((1, 1, 1), np.uint8)))
    assert kept.get(0) is None
    assert not kept.fits(1, 1, 1)
    assert KeptImages(0, ROOM).share == ROOM


def test_an_image_that_is_not_complete_is_decoded_again(tmp_path):
    files = Files([saved(tmp_path, "a.png")], {}, 3, None, keep=ROOM)
    before = crops(files)
    memory = files.kept._memory
    assert memory is not None
    memory[HEADER.size + 100] ^= 1
    assert files.kept.get(0) is None
    assert torch.equal(crops(files), before)
    assert files.kept.get(0) is not None


def _read(files):
    crops(files)


@pytest.mark.integration
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_share_what_they_keep(tmp_path, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    path = saved(tmp_path, "a.png")
    files = Files([path], {}, 3, None, keep=ROOM)
    process = multiprocessing.get_context(method).Process(target=_read, args=(files,))
    process.start()
    process.join()
    assert process.exitcode == 0
    Path(path).unlink()
    assert torch.equal(crops(files), crops(files, seeds=range(6)))


def test_a_pickled_copy_keeps_nothing(tmp_path):
    files = Files([saved(tmp_path, "a.png")], {}, 3, None, keep=ROOM)
    before = crops(files)
    copy = pickle.loads(pickle.dumps(files))
    assert copy.kept.get(0) is None
    assert torch.equal(crops(copy), before)


@pytest.mark.integration
@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_of_a_folder(tmp_path, workers):
    """The second run of a process over the images reads no file, and crops are the same as without memory."""
    for index in range(8):
        saved(tmp_path, f"{index}.{'png' if index % 2 else 'jpg'}", 20 + index, 30)
    crop = TrainTransform((16, 16), (0.3, 1.0), (0.75, 4 / 3), flip=True)
    keys = [[SampleIndex(0, image, epoch, image) for image in range(8)] for epoch in range(3)]

    def train_images(mib):
        config = train_config("data=folder", f"data.root={tmp_path}", "data.image_size=16", "model.patch_size=4",
                              "data.val_fraction=0", f"data.keep_mib={mib}")  # fmt: skip
        return sources.build(config.data, 0).train

    def epochs(images):
        return torch.stack([batch for _, batch, _ in Loader(Crops(images, crop, 0), keys, workers)])

    kept, without = train_images(1), epochs(train_images(0))
    assert torch.equal(epochs(kept), without)
    for path in tmp_path.iterdir():
        path.unlink()
    assert torch.equal(epochs(kept), without)


def test_crop_sizes_may_differ(tmp_path):
    """A smaller crop of a kept JPEG file is cut from a half of its size, as without memory."""
    path = saved(tmp_path, "a.jpg", 64, 64)
    files, plain = Files([path], {}, 3, None, keep=ROOM), Files([path], {}, 3, None)
    for size in ((60, 60), (16, 16), (60, 60)):
        crop = RandomCrop(size, (1, 1), (1, 1))
        assert torch.equal(files.read_crop(0, crop), plain.read_crop(0, crop))
