import io
import shutil

import numpy as np
import pytest
import torch
from helpers import picture, train_config
from PIL import Image

from ijepa.data import sources
from ijepa.data.datamodule import Crops, ResumableBatchSampler, SampleIndex
from ijepa.data.decode import convert, decode
from ijepa.data.images import EvalTransform, TrainTransform
from ijepa.data.sets import Files
from ijepa.run import build
from ijepa.util.errors import UserError


def config(root, *overrides):
    return train_config("data=folder", f"data.root={root}", "data.image_size=32", *overrides)


def source(root, *overrides, seed=0):
    return sources.build(config(root, *overrides).data, seed)


def test_labels_and_parts(pictures):
    found = source(pictures)
    assert (len(found.train), len(found.val)) == (24, 8)
    assert found.classes == {"class": ["cold", "warm"]}
    assert found.train.labels["class"] == [0] * 12 + [1] * 12
    assert not found.notes


def test_one_tree_is_split_by_seed(pictures):
    part = pictures / "train"
    first, again, other = source(part, "data.val_fraction=0.25"), source(part, "data.val_fraction=0.25"), None
    other = source(part, "data.val_fraction=0.25", seed=1)
    names = [[found.val.name(i) for i in range(len(found.val))] for found in (first, again, other)]
    assert len(names[0]) == 6
    assert names[0] == names[1] != names[2]
    train = {first.train.name(i) for i in range(len(first.train))}
    assert not train & set(names[0])
    assert first.classes == {"class": ["cold", "warm"]}


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


def test_without_labels(pictures, tmp_path):
    for file in (pictures / "train" / "cold").iterdir():
        shutil.copy(file, tmp_path)
    found = source(tmp_path)
    assert found.classes == {}
    assert found.train.labels == {}


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


@pytest.mark.parametrize("content", ["missing", "file", "empty", "text only", "broken only"])
def test_a_folder_without_a_readable_image_is_refused(tmp_path, content):
    root = tmp_path / "data"
    if content == "file":
        root.write_text("")
    elif content != "missing":
        root.mkdir()
    if content == "text only":
        (root / "a.txt").write_text("")
    if content == "broken only":
        (root / "a.png").write_text("")
        (root / "b.jpg").write_text("")
    with pytest.raises(UserError, match=r"^data.root=") as caught:
        source(root)
    assert "\n" not in str(caught.value)


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


def test_training_crops_are_a_function_of_the_seed():
    transform = TrainTransform((32, 48), (0.3, 1.0), (0.75, 4 / 3), flip=True)
    image = picture(0, 60, 80)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = transform(image, 7), transform(image, 7), transform(image, 8)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.shape == (3, 32, 48)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_eval_transform_keeps_proportions_and_ends_at_one():
    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (100, 1)))
    result = EvalTransform((50, 50))(ramp)
    assert result.shape == (1, 50, 50)
    assert result[0, 0, 0].item() == pytest.approx(50.5 / 255, abs=0.01)  # the middle half of the ramp
    assert result[0, 0, -1].item() == pytest.approx(148.5 / 255, abs=0.01)
    zoomed = EvalTransform((50, 50), crop=0.5)(ramp)
    assert zoomed[0, 0, 0].item() == pytest.approx(75.5 / 255, abs=0.01)
    white = Image.new("L", (70, 50), 255)
    assert EvalTransform((50, 50))(white).max() == 1
    tensor = torch.full((1, 50, 70), 255, dtype=torch.uint8)
    assert torch.equal(EvalTransform((50, 50))(tensor), EvalTransform((50, 50))(white))


def test_a_file_that_is_missing_counts_at_its_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    found = set()
    for names in (("gone", "a", "b"), ("a", "gone", "b"), ("a", "b")):
        found.add(Files([str(tmp_path / name) for name in names], {}, 3, None).fingerprint())
    assert len(found) == 3


def test_stretching_keeps_the_whole_image():
    ramp = Image.fromarray(np.linspace(0, 255, 200, dtype=np.uint8)[None].repeat(40, 0))
    whole = EvalTransform((50, 100), crop=0.5, stretch=True)(ramp)
    assert whole.shape == (1, 50, 100)
    assert (whole[0] - torch.linspace(0, 1, 100)).abs().max() < 0.01


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


def test_links_back_up_the_tree_and_damaged_metadata(pictures, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(pictures / "train", root)
    (root / "cold" / "up").symlink_to(root)
    found = source(root, "data.val_fraction=0")
    assert len(found.train) == 24
    exif = Image.Exif()
    exif[0x0112] = 6
    image = picture(1, 20, 30)
    image.save(tmp_path / "a.jpg", exif=exif)
    assert decode(str(tmp_path / "a.jpg"), 3).size == (20, 30)  # turned upright
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    at = data.index(b"Exif") + 16
    data[at : at + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "b.jpg").write_bytes(data)
    assert sorted(decode(str(tmp_path / "b.jpg"), 3).size) == [20, 30]


def test_nothing_left_to_train_on(pictures, tmp_path):
    shutil.copy(next((pictures / "train" / "cold").iterdir()), tmp_path)
    with pytest.raises(UserError, match=r"^data.val_fraction=0.6: leaves no training images"):
        source(tmp_path, "data.val_fraction=0.6")
    with pytest.raises(UserError, match=r"^data.root=.*add data=folder"):
        sources.build(train_config(f"data.root={tmp_path}").data, 0)


def test_a_source_of_one_s_own(tmp_path):
    found = sources.build(train_config("data.source=ijepa.data.sources.digits").data, 0)
    assert len(found.train) + len(found.val) == 1797
    for name, problem in (("nothing", "folder, scenes, digits, imagenet"), ("no.such.function", "cannot be imported")):
        with pytest.raises(UserError, match=rf"^data.source={name}: .*{problem}"):
            sources.build(train_config(f"data.source={name}").data, 0)
