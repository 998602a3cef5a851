"""Batches: their order, crops and replacements are functions of seed and step."""

import shutil

import numpy as np
import pytest
import torch
from helpers import train_config
from image_files import config, noise, source
from PIL import Image

from ijepa.data import sources
from ijepa.data.datamodule import Crops, ResumableBatchSampler, SampleIndex
from ijepa.data.files import Files
from ijepa.data.images import TrainTransform, jittered
from ijepa.run import build
from ijepa.util.errors import UserError


def test_crops_and_order_depend_on_seed_and_epoch(pictures):
    images = source(pictures).train
    transform = TrainTransform((16, 16), (0.3, 1.0), (0.75, 1.33), flip=False)

    def crop(seed, epoch, step=0, position=0):
        return Crops(images, transform, seed)[SampleIndex(step, position, epoch, 3)][1]

    assert torch.equal(crop(0, 0), crop(0, 0, step=9, position=5))
    assert not torch.equal(crop(0, 0), crop(0, 1))
    assert not torch.equal(crop(0, 0), crop(1, 0))
    orders = [
        [place.image for places in ResumableBatchSampler(24, 24, seed, 2, first, 1, 0, 1) for place in places][:24]
        for seed, first in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == list(range(24)) for order in orders)


@pytest.mark.parametrize(("channels", "top", "dtype"), [(3, 255, torch.uint8), (5, 3000, torch.float32)])
def test_jitter_changes_the_crop_by_seed_alone(channels, top, dtype):
    """For integers and for floats, of any range and number of channels."""
    image = torch.linspace(0, top, channels * 64).view(channels, 8, 8).to(dtype)
    plain, changed = (TrainTransform((8, 8), (0.5, 1.0), (0.75, 1.33), False, jitter) for jitter in (0.0, 0.4))
    before = torch.get_rng_state()
    assert torch.equal(changed(image, 1), changed(image, 1))
    assert torch.equal(before, torch.get_rng_state())
    pairs = [(plain(image, seed).float(), changed(image, seed)) for seed in range(40)]
    assert all(result.dtype == dtype for _, result in pairs)
    ratios = torch.stack([result.float().mean() / original.mean() for original, result in pairs])
    assert 0.59 < ratios.min() < 0.7
    assert 1.3 < ratios.max() < 1.41
    contrasts = torch.stack([r.float().std() / o.std() for o, r in pairs]) / ratios
    assert contrasts.min() < 0.8 < 1.2 < contrasts.max()


def test_jitter_of_grey_colours_changes_no_hue():
    """Saturation scales the distance to grey; a grey image stays grey."""
    grey = torch.linspace(0, 200, 64).expand(3, 64).reshape(3, 8, 8).to(torch.uint8)
    result = jittered(grey, 0.4)
    assert torch.equal(result[0], result[1])
    assert torch.equal(result[0], result[2])


def test_jitter_is_configured(pictures, tmp_path):
    run = build.run(config(pictures, "data.jitter=0.25", "hardware=cpu"), tmp_path / "run")
    assert run.data.transform.jitter == 0.25


def test_faulty_files_are_named_and_replaced(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "data")
    folder = tmp_path / "data" / "train" / "cold"
    whole = (folder / "train-0.png").read_bytes()
    (folder / "train-0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.png").write_text("no picture")
    (folder / "readme.txt").write_text("no picture either")
    (folder / "empty.jpg").write_bytes(b"")
    run = build.run(config(tmp_path / "data", "data.workers=0", "data.batch_size=27", "schedule.max_steps=2",
                           "schedule.warmup_steps=0", "hardware=cpu"), tmp_path / "run")  # fmt: skip
    assert run.data.source.notes == ["1 files are not images and were skipped: readme.txt"]
    batch = next(iter(run.data.train_dataloader()))
    assert batch.images.shape == (27, 3, 32, 32)
    assert len(batch.unreadable) >= 3
    for name in ("train-0.png", "notes.png", "empty.jpg"):
        assert any(name in line for line in batch.unreadable)


def test_a_file_that_is_missing_counts_at_its_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    found = set()
    for names in (("gone", "a", "b"), ("a", "gone", "b"), ("a", "b")):
        found.add(Files([str(tmp_path / name) for name in names], {}, 3, None).fingerprint())
    assert len(found) == 3


def stream(devices=1, accumulation=1, first=0, steps=7, images=30, batch=12):
    """Every global batch, as sorted places."""
    batches = [[] for _ in range(steps)]
    for device in range(devices):
        places = ResumableBatchSampler(images, batch, 3, steps, first, accumulation, device, devices)
        for micro in places:
            batches[micro[0].step].extend(micro)
    return [sorted(batch) for batch in batches]


def test_an_epoch_shows_each_image_once():
    places = [place for batch in stream(steps=10) for place in batch]
    for epoch in range(4):
        assert sorted(place.image for place in places if place.epoch == epoch) == list(range(30))
    orders = [[place.image for place in places if place.epoch == epoch] for epoch in range(2)]
    assert orders[0] != orders[1] != sorted(orders[1])


@pytest.mark.parametrize(("devices", "accumulation"), [(2, 1), (1, 3), (2, 2), (4, 3)])
def test_devices_and_accumulation_see_the_same_global_batches(devices, accumulation):
    assert stream(devices, accumulation) == stream()


def test_a_resumed_run_goes_on_where_it_was():
    assert stream(first=4)[4:] == stream()[4:]


def test_workers_change_nothing(pictures, tmp_path):
    batches = []
    for workers in (0, 2):
        run = build.run(config(pictures, f"data.workers={workers}", "data.batch_size=10", "schedule.max_steps=4",
                               "schedule.warmup_steps=0", "hardware=cpu"), tmp_path)  # fmt: skip
        batches.append(list(run.data.train_dataloader()))
    assert len(batches[0]) == 4
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.masks.context, other.masks.context)
        assert torch.equal(one.masks.targets, other.masks.targets)


def test_nothing_left_to_train_on(pictures, tmp_path):
    shutil.copy(next((pictures / "train" / "cold").iterdir()), tmp_path)
    with pytest.raises(UserError, match=r"^data.val_fraction=0.6: leaves no training images"):
        source(tmp_path, "data.val_fraction=0.6")
    with pytest.raises(UserError, match=r"^data.root=.*add data=folder"):
        sources.build(train_config(f"data.root={tmp_path}").data, 0)


def test_a_source_of_one_s_own(tmp_path):
    found = sources.build(train_config("data.source=ijepa.data.sources.digits").data, 0)
    assert len(found.train) + len(found.val) == 1797
    for name, problem in (
        ("nothing", "folder, list, scenes, digits, imagenet"),
        ("no.such.function", "cannot be imported"),
    ):
        with pytest.raises(UserError, match=rf"^data.source={name}: .*{problem}"):
            sources.build(train_config(f"data.source={name}").data, 0)


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
