"""data.labels: classes from a CSV file, and images without one."""

import os
import re
import shutil

import pytest
from helpers import train_config
from image_files import source

from ijepa.data import sources
from ijepa.data.sets import UNLABELLED
from ijepa.util.errors import UserError


def write(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    return f"data.labels={tmp_path / 'labels.csv'}"


def by_name(images, label_set="class", parts=1):
    names = ("/".join(images.name(index).split("/")[-parts:]) for index in range(len(images)))
    return dict(zip(names, images.labels[label_set], strict=True))


def names(root):
    return sorted(path.name for path in root.rglob("*.png"))


@pytest.fixture
def tree(pictures, tmp_path):
    """A copy of the pictures, to be changed."""
    return shutil.copytree(pictures, tmp_path / "tree")


@pytest.fixture
def flat(pictures, tmp_path):
    """12 pictures directly in a folder."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for file in (pictures / "train" / "cold").iterdir():
        shutil.copy(file, folder)
    return folder


def test_some_images_have_a_label(flat, tmp_path):
    first, second, third, *others = names(flat)
    labels = write(tmp_path, f"file,class\n{first},b\n\n{second}, a\n./{third},b\n".replace("./", f"{flat}/"))
    found = source(flat, labels, "data.val_fraction=0")
    assert found.classes == {"class": ["a", "b"]}
    assert by_name(found.train) == {first: 1, second: 0, third: 1, **dict.fromkeys(others, UNLABELLED)}


def test_several_label_sets_in_parts(pictures, tmp_path):
    train, val = (names(pictures / part / "cold") for part in ("train", "val"))
    lines = [f"10;train/cold/{train[0]};x", f"9;train/cold/{train[1]};", f";val/cold/{val[0]};y"]
    labels = write(tmp_path, "\ufeffcount;file;kind\n" + "\n".join(lines) + "\n")
    found = source(pictures, labels)
    assert found.classes == {"count": ["9", "10"], "kind": ["x", "y"]}  # numbers in their order
    assert by_name(found.train, "count", 2)[f"cold/{train[0]}"] == 1
    assert by_name(found.train, "kind", 2)[f"cold/{train[1]}"] == UNLABELLED
    assert sorted(set(found.val.labels["count"])) == [UNLABELLED]
    assert found.val.labels["kind"].count(1) == 1


def test_equal_numbers_have_a_fixed_order(flat, tmp_path):
    first, second, third, *_ = names(flat)
    labels = write(tmp_path, f"file,class\n{first},1\n{second},01\n{third},001\n")
    assert source(flat, labels, "data.val_fraction=0").classes == {"class": ["001", "01", "1"]}


def test_a_class_whose_name_is_a_number_of_very_many_digits(flat, tmp_path):
    first, second, *_ = names(flat)
    labels = write(tmp_path, f"file,class\n{first},10\n{second},{'9' * 5000}\n")
    assert source(flat, labels, "data.val_fraction=0").classes == {"class": ["10", "9" * 5000]}


def test_labels_do_not_change_what_is_held_out(flat, tmp_path):
    labels = write(tmp_path, "file,class\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(names(flat)[:6])))
    without, with_labels = (source(flat, *more, "data.val_fraction=0.25") for more in ([], [labels]))
    assert by_name(with_labels.val).keys() == {without.val.name(i).rpartition("/")[2] for i in range(len(without.val))}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "its first line should name the columns, as in file,class, not nothing"),
        ("a.png,cat\n", "its first line should name the columns, as in file,class, not a.png,cat"),
        ("file\na.png\n", "its first line should name the columns, as in file,class, not file"),
        ("file,a.b\n{0},a\n", "column a.b: its name may not contain . or /"),
        ("file,class\n{0},a\n{1}\n", "line 3: should have 2 values: file,class"),
        ("file,class\n{0},a\nnowhere.png,b\n", "line 3: nowhere.png is the name of none of the images"),
        ("file,class\n{0},a\n{1},b\n{0},b\n", "line 4: {0} is in line 2 already"),
        ("file,class\n{0},a\n{1},a\n", "column class: needs at least two classes, not 1"),
        ('file,class\n"{0},a\n', "line 2: unexpected end of data"),
    ],
)
def test_mistakes_name_the_line(flat, tmp_path, text, problem):
    first, second, *_ = names(flat)
    with pytest.raises(UserError) as caught:
        source(flat, write(tmp_path, text.format(first, second)))
    assert str(caught.value).endswith(problem.format(first, second))
    assert str(caught.value).startswith("data.labels=")


def test_ambiguous_missing_and_binary_files(tree, tmp_path):
    name = names(tree / "train" / "cold")[0]
    shutil.copy(tree / "train" / "cold" / name, tree / "train" / "warm" / name)
    with pytest.raises(UserError, match="the name of several images; give the folder, too"):
        source(tree, write(tmp_path, f"file,class\n{name},a\ncold/b.png,b\n"))
    with pytest.raises(UserError, match=r"data.labels=.*nowhere.csv: cannot be read: No such file"):
        source(tree, f"data.labels={tmp_path / 'nowhere.csv'}")
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read: not UTF-8"):
        source(tree, f"data.labels={tmp_path / 'labels.csv'}")
    os.mkfifo(tmp_path / "fifo.csv")
    with pytest.raises(UserError, match="cannot be read: not a regular file"):
        source(tree, f"data.labels={tmp_path / 'fifo.csv'}")


def test_only_folders_have_such_a_file(tmp_path):
    with pytest.raises(UserError, match=re.escape("needs data=folder; omit it")):
        sources.build(train_config("data=digits", write(tmp_path, "file,class\n")).data, 0)


def test_a_stray_picture_beside_class_folders(tree):
    stray = names(tree / "train" / "cold")[0]
    shutil.copy(tree / "train" / "cold" / stray, tree / "train" / "stray.png")
    found = source(tree)
    assert by_name(found.train)["stray.png"] == UNLABELLED
    assert found.classes == {"class": ["cold", "warm"]}
    assert found.notes == ["1 image is in no class folder and without a label: stray.png"]


def test_a_text_file_of_labels_has_columns(flat, tmp_path):
    """It is no plain list of files."""
    first, second, *_ = names(flat)
    (tmp_path / "labels.txt").write_text(f"file\tclass\n{first}\ta\n{second}\tb\n")
    assert source(flat, f"data.labels={tmp_path / 'labels.txt'}").classes == {"class": ["a", "b"]}
