"""data=folder: which folders hold training and validation images."""

import os
import re
import shutil
from pathlib import Path

import pytest
from helpers import picture
from image_files import source

from ijepa.util.errors import UserError


def make(root, **folders):
    """Folders with ``a.png, b.png, ...``; a number of pictures in each."""
    number = 0
    for name, count in folders.items():
        folder = root / re.sub(r"(?<=\w)__(?=\w)", "/", name)
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture(number, 8, 8).save(folder / f"{index}.png")
            number += 1
    return root


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train", "val"),
        ("train", "test"),
        ("Train", "Validation"),
        ("TRAINING", "valid"),
        ("training", "Testing"),
        ("training_set", "test_set"),
        ("train2017", "val2017"),
        ("training data", "test data"),
        ("Train Set", "Val Set"),
        ("training_images_2017", "validation_images_2017"),
        ("1_train", "2_test"),
        ("TrainImages", "TestImages"),
        ("training", "evaluation"),
        ("seg_train", "seg_test"),
        ("my_train", "my_val"),
        ("trainA", "testA"),
        ("train_1", "val_1"),
        ("train224", "val224"),
        ("DIV2K_train_HR", "DIV2K_valid_HR"),
        ("train.v1", "val.v1"),
    ],
)
def test_parts_by_any_usual_name(tmp_path, train, val):
    make(tmp_path, **{f"{train}__a": 3, f"{train}__b": 2, f"{val}__a": 1, f"{val}__b": 1})
    found = source(tmp_path)
    assert (len(found.train), len(found.val)) == (5, 2)
    assert found.classes == {"class": ["a", "b"]}
    named = f"{train}/ has the training images, {val}/ the validation images"
    assert found.notes == ([] if (train, val) == ("train", "val") else [named])


@pytest.mark.parametrize(
    "classes",
    [("bullet_train", "test_tube"), ("pretrain", "contest"), ("train_station", "valley"), ("trained", "tested"),
     ("tr", "de"), ("test1", "test2")],
)  # fmt: skip
def test_classes_whose_names_contain_those_of_parts(tmp_path, classes):
    make(tmp_path, **dict.fromkeys(classes, 2))
    found = source(tmp_path, "data.val_fraction=0")
    assert (len(found.train), found.classes, found.notes) == (4, {"class": sorted(classes)}, [])


def test_further_parts_are_named(tmp_path):
    make(tmp_path, seg_train__a=3, seg_train__b=2, seg_test__a=1, seg_pred=2)
    assert source(tmp_path).notes == [
        "not used: seg_pred/, beside seg_train/, seg_test/",
        "seg_train/ has the training images, seg_test/ the validation images",
    ]
    for name in ("x.png", "y.png", "z.txt"):
        picture(0, 8, 8).save(tmp_path / name, format="png")
    assert "not used: 2 images beside seg_train/, in no folder: x.png, y.png" in source(tmp_path).notes


def test_parts_a_level_below_are_refused(tmp_path):
    """As YOLO has them; validation images would be training images."""
    root = make(tmp_path / "my data", images__train=3, images__val=1)
    (root / "labels" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="images/ is divided into train/, val/, which would all be training") as caught:
        source(root)
    assert str(caught.value).endswith(f"; try 'data.root={root}/images'")
    assert len(source(root / "images").val) == 1
    make(root, cat=1)  # then images/ is a class like it
    assert source(root, "data.val_fraction=0").classes == {"class": ["cat", "images"]}
    make(tmp_path / "b", cat__train=2, cat__val=1, dog__train=2, dog__val=1)
    with pytest.raises(UserError, match="cat/ is divided into train/, val/"):
        source(tmp_path / "b")


def test_one_folder_for_both_parts_is_refused(tmp_path):
    root = make(tmp_path, train__a=3, train__b=3)
    (root / "val").symlink_to(root / "train")
    with pytest.raises(UserError, match="val/ and train/ are the same folder, so every validation image would be a"):
        source(root)


def test_one_of_several_parts(tmp_path):
    make(tmp_path, train__a=3, train__b=3, val__a=1, test__a=2, extra=1)
    found = source(tmp_path)
    assert len(found.val) == 1
    assert found.notes == ["not used: test/, extra/, beside train/, val/"]
    found = source(tmp_path, "data.val=test")
    assert len(found.val) == 2
    assert "train/ has the training images, test/ the validation images" in found.notes
    assert source(tmp_path, "data.val=extra").val.name(0).endswith("extra/0.png")
    with pytest.raises(UserError, match=r"data.val=dev: no such folder in .*; it has extra/, test/, train/, val/"):
        source(tmp_path, "data.val=dev")


def test_a_test_set_without_labels(tmp_path):
    """As published for competitions: the labelled images are divided instead."""
    make(tmp_path, train__a=10, train__b=10, test=5)
    found = source(tmp_path, "data.val_fraction=0.2")
    assert (len(found.train), len(found.val)) == (16, 4)
    assert found.notes == [
        "test/ has no class folders, so validation images are held out from train/; data.val=test uses it all the same"
    ]
    found = source(tmp_path, "data.val=test")
    assert (len(found.train), len(found.val)) == (20, 5)
    make(tmp_path / "flat", train=4, test=2)  # no labels anywhere: nothing is lost
    assert len(source(tmp_path / "flat").val) == 2


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"val__a": 1, "test__a": 1}, r"has test/, val/, but no folder for training \(train, training\); to train on"),
        ({"train__a": 1, "val__a": 1, "valid__a": 1}, "has val/, valid/; choose one by data.val=val"),
        ({"train__a": 1, "Training__a": 1}, "has Training/, train/; give the folder of one of them"),
        (
            {"train": 3, "bus": 3, "car": 3},
            "train/ could be a class like bus/, car/, or the training images; rename it",
        ),
        ({"cat": 3, "dog": 3, "test": 3}, "test/ could be a class like cat/, dog/, or the validation images; rename"),
        ({"tr": 3, "te": 3}, "te/, tr/ could be classes, or training and validation images; rename them"),
        ({"trainA": 3, "trainB": 3, "testA": 3, "testB": 3}, "has trainA/, trainB/; give the folder of one of them"),
    ],
)
def test_what_could_be_either_is_refused(tmp_path, folders, message):
    make(tmp_path, **folders)
    with pytest.raises(UserError, match=f"^data.root=.*: .*{message}") as caught:
        source(tmp_path)
    assert "\n" not in str(caught.value)


def test_names_without_images_are_no_parts(tmp_path):
    make(tmp_path, cat=3, dog=3, test=0, val=0)
    assert source(tmp_path, "data.val_fraction=0").classes == {"class": ["cat", "dog"]}
    make(tmp_path / "b", train__a=3, train__b=3, val=0, test__a=1)
    assert source(tmp_path / "b").val.name(0).endswith("test/a/0.png")


def test_linked_classes_are_validation_images(tmp_path):
    """As ImageNet's are often set up."""
    make(tmp_path / "store", a=1, b=1)
    root = make(tmp_path / "data", train__a=3, train__b=3, val=0)
    for name in ("a", "b"):
        (root / "val" / name).symlink_to(tmp_path / "store" / name)
    found = source(root)
    assert (len(found.train), len(found.val), found.notes) == (6, 2, [])


def test_what_holds_no_images_is_in_nobodys_way(tmp_path):
    root = make(tmp_path, train__a=3, train__b=3, training=0, val__a=1)
    (root / "training" / "log.txt").write_text("")
    assert len(source(root).train) == 6
    root = make(tmp_path / "flat", train=4)
    (root / "runs").mkdir()
    (root / "runs" / "config.yaml").write_text("# Repeat: python train.py")
    picture(0, 8, 8).save(root / "runs" / "masks.png")
    assert len(source(root, "data.val_fraction=0").train) == 4
    make(root, unlabeled=2)
    (tmp_path / "labels.csv").write_text("file,class\n0.png,a\n1.png,b\n")
    assert len(source(root, "data.val_fraction=0", f"data.labels={tmp_path / 'labels.csv'}").train) == 4


def test_a_chosen_folder_without_images(tmp_path):
    make(tmp_path, train__a=3, train__b=3, hold=0, other__a=2)
    with pytest.raises(UserError, match=r"data.val=hold: no image in"):
        source(tmp_path, "data.val=hold")
    assert len(source(tmp_path, "data.val=other/").val) == 2


def test_validation_classes_that_training_lacks_are_named(tmp_path):
    make(tmp_path, train__a=3, train__b=3, val__a=1, val__c=2)
    (note,) = source(tmp_path).notes
    assert note == "2 validation images are of classes without training images, so count as errors: c"
    (tmp_path / "labels.csv").write_text(
        "file,class,size\n" + "".join(f"train/{name}/{i}.png,{name},s\n" for name in "ab" for i in range(3))
        + "val/a/0.png,a,s\nval/c/0.png,a,l\n"
    )  # fmt: skip
    (note,) = source(tmp_path, f"data.labels={tmp_path / 'labels.csv'}").notes
    assert note == "size: 1 validation images are of classes without training images, so count as errors: l"
    make(tmp_path / "few", **dict.fromkeys("abcdefgh", 1))  # held out at random
    (note,) = source(tmp_path / "few", "data.val_fraction=0.5").notes
    assert note.startswith("4 validation images are of classes without training images, so count as errors: ")


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", ".thumbnails", "$RECYCLE.BIN", "lost+found"])
def test_system_folders_are_no_classes(tmp_path, name):
    make(tmp_path, cat=2, dog=2, **{f"cat/{name}": 2})
    shutil.copytree(tmp_path / "cat", tmp_path / name)
    found = source(tmp_path, "data.val_fraction=0")
    assert (len(found.train), found.classes) == (4, {"class": ["cat", "dog"]})
    make(tmp_path / "parts", train=3, val=1, **{name: 2})
    found = source(tmp_path / "parts")
    assert (len(found.train), len(found.val), found.notes) == (3, 1, [])


def test_the_second_link_to_a_folder_is_named(tmp_path):
    make(tmp_path / "data", cat=2, dog=2)
    (tmp_path / "data" / "kitten").symlink_to(tmp_path / "data" / "cat")
    (note,) = source(tmp_path / "data", "data.val_fraction=0").notes
    assert note.endswith("kitten is a link to " + str(tmp_path / "data" / "cat") + ", whose images are listed already; "
                         "it was skipped")  # fmt: skip


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """`os.scandir` refuses folders called locked; root may list whatever it likes."""
    original = os.scandir

    def scandir(path="."):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_folders_that_cannot_be_listed(tmp_path, locked):
    make(tmp_path, cat=2, dog=2, cat__locked=1)
    (note,) = source(tmp_path, "data.val_fraction=0").notes
    assert note == f"{tmp_path}/cat/locked cannot be listed (Permission denied); its images are missing"
    make(tmp_path / "b", cat=2, dog=2, locked=1)
    with pytest.raises(UserError, match=r"^data.root=.*: .*/b/locked cannot be listed: Permission denied"):
        source(tmp_path / "b", "data.val_fraction=0")
    with pytest.raises(UserError, match=r"^data.root=.*locked.*: .*Permission denied"):
        source(tmp_path / "b" / "locked")


def test_validation_images_that_cannot_be_listed(tmp_path, locked):
    """They are not passed over for images held out from train."""
    make(tmp_path, train__a=3, train__b=3, val__locked=1)
    with pytest.raises(UserError, match=r"^data.root=.*: .*/val/locked cannot be listed: Permission denied"):
        source(tmp_path)
    root = make(tmp_path / "places", train__a=3, train__b=3, val__a=1, val__locked=1)
    with pytest.raises(UserError, match=r"^data.root=.*: .*/val/locked cannot be listed: Permission denied"):
        source(root, "data=imagenet")
