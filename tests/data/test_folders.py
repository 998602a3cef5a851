"""data=folder: which files count, their classes and parts."""

import shutil

import numpy as np
import pytest
from helpers import picture, train_config
from image_files import noise, source
from PIL import Image

from ijepa.data import sources
from ijepa.data.decode import decode
from ijepa.util.errors import UserError


def test_which_files_are_images(tmp_path):
    for name in ("a.GIF", "b.Npy", "c.npz", "d.TIFF"):
        np.save((tmp_path / name).open("wb"), noise(6, 5))
    (tmp_path / "e.csv").write_text("")
    config = train_config("data=folder", f"data.root={tmp_path}", "data.val_fraction=0")
    found = sources.build(config.data, 0)
    assert (len(found.train), found.not_images) == (4, [str(tmp_path / "e.csv")])


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


def test_without_labels(pictures, tmp_path):
    for file in (pictures / "train" / "cold").iterdir():
        shutil.copy(file, tmp_path)
    found = source(tmp_path)
    assert found.classes == {}
    assert found.train.labels == {}


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
