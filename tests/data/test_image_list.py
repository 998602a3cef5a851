"""data=list: images that a table lists."""

import os
import re

import pytest
from helpers import train_config
from image_files import source

from ijepa.data import sources
from ijepa.data.sets import UNLABELLED
from ijepa.util.errors import UserError


def write(folder, text, name="images.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def listed(path, *values):
    """The source of the list at ``path``."""
    config = train_config("data=list", f"data.root={path}", "data.image_size=32", "model.patch_size=4", *values)
    return sources.build(config.data, config.seed)


def names(images):
    return [os.path.relpath(images.name(index)) for index in range(len(images))]


@pytest.fixture
def files(pictures, tmp_path, monkeypatch):
    """Paths of pictures relative to the working directory, where lists are."""
    monkeypatch.chdir(tmp_path)
    return sorted(os.path.relpath(path) for path in pictures.rglob("*.png"))


def test_splits_and_label_sets(files, tmp_path):
    one, two, three, four, five, *_ = files
    path = write(tmp_path, f"class;file;split;size\nb;{one};train;9\na;{two};Train;10\n;{three};val;\n"
                           f"a;{tmp_path / four};dev;9\nb;{five};test;9\n")  # fmt: skip
    found = listed(path)
    assert names(found.train) == [one, two]
    assert names(found.val) == [three, four]
    assert found.classes == {"class": ["a", "b"], "size": ["9", "10"]}
    assert dict(found.train.labels) == {"class": [1, 0], "size": [0, 1]}
    assert dict(found.val.labels) == {"class": [UNLABELLED, 0], "size": [UNLABELLED, 0]}
    assert found.notes == ["left out: 1 of the split test"]
    assert found.train.read(0).size == found.val.read(1).size


@pytest.mark.parametrize("column", ["file", "path", "file_name", "filename", "image"])
def test_a_part_is_held_out_by_seed(files, tmp_path, column):
    path = write(tmp_path, "\n".join([column, *files]), "images.tsv")
    found = listed(path, "data.val_fraction=0.25")
    assert sorted([*names(found.train), *names(found.val)]) == files
    assert len(found.val) == round(len(files) / 4)
    assert not found.classes
    assert names(listed(path, "data.val_fraction=0.25", "seed=1").val) != names(found.val)
    assert len(listed(path, "data.val_fraction=0").val) == 0


def test_a_plain_list_may_have_commas(files, tmp_path, pictures):
    strange = tmp_path / "a, b;c.png"
    strange.write_bytes((tmp_path / files[0]).read_bytes())
    path = write(tmp_path, f"{strange.name}\n\n{files[1]}\n", "images.txt")
    assert names(listed(path, "data.val_fraction=0").train) == [strange.name, files[1]]


def test_two_lists(files, tmp_path):
    path = write(tmp_path, f"file,class\n{files[0]},x\n{files[1]},y\n", "train.csv")
    write(tmp_path, f"file,class\n{files[2]},y\n{files[3]},z\n", "val.csv")
    found = listed(path, "data.val=val.csv")
    assert names(found.val) == files[2:4]
    assert found.classes == {"class": ["x", "y", "z"]}
    assert dict(found.val.labels) == {"class": [1, 2]}
    assert "1 validation images are of classes without training images" in found.notes[-1]


def test_parquet(files, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="an extra")
    from pyarrow import parquet

    columns = {"image": files[:4], "grade": [3, 10, None, 3], "split": ["train", "train", "train", "val"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "images.parquet")
    found = listed(tmp_path / "images.parquet")
    assert names(found.train) == files[:3]
    assert found.classes == {"grade": ["3", "10"]}
    assert dict(found.train.labels) == {"grade": [0, 1, UNLABELLED]}
    (tmp_path / "images.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"^data.root=.*images.parquet: cannot be read: "):
        listed(tmp_path / "images.parquet")


def test_labels_of_a_folder_may_be_in_parquet(pictures, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="an extra")
    from pyarrow import parquet

    first, second = sorted((pictures / "train").rglob("*.png"))[:2]
    table = pyarrow.table({"file": [str(first), str(second)], "grade": ["a", "b"]})
    parquet.write_table(table, tmp_path / "labels.parquet")
    assert source(pictures, f"data.labels={tmp_path / 'labels.parquet'}").classes == {"grade": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("", (), r"data.root=.*: its first line should name the columns, as in file,class, not nothing"),
        ("name,class\na,b\n", (), r"data.root=.*: its first line should name the columns, .* not name,class"),
        ("file,class\n{0}\n", (), r"data.root=.*: line 2: should have 2 values: file,class"),
        ("file\n{0}\n./{0}\n", (), r"data.root=.*: line 3: .* is in line 2 already"),
        ("file\nno.png\nother.png\n", (), r"data.root=.*: none of its 2 image files can be read; .*no.png"),
        ("file,a/b\n{0},1\n", (), r"data.root=.*: column a/b: its name may not contain . or /"),
        ("file,split\n{0},test\n", (), r"data.root=.*: lists no training images"),
        ("file\n{0}\n", ("data.val=none.csv",), r"data.val=.*none.csv: cannot be read: No such file"),
        ("file,split\n{0},val\n", ("data.val=images.csv",), r"data.val=images.csv: images.csv has a column split"),
        (
            "file\n{0}\n",
            ("data.val=other.csv",),
            r"data.val=other.csv: has the columns class beside its files,",
        ),
        ("file,class\n{0},a\n", ("data.val=twice.csv",), r"data.val=twice.csv: lists images of images.csv, too: .*png"),
        ("file\n{0}\n", ("data.labels=images.csv",), r"data.labels=.*: needs data=folder"),
    ],
)
def test_what_is_wrong_with_a_list(files, tmp_path, text, values, message):
    write(tmp_path, "file,class\n", "other.csv")
    write(tmp_path, f"file,class\n{files[0]},b\n", "twice.csv")
    with pytest.raises(UserError) as found:
        listed(write(tmp_path, text.format(*files)), *values)
    assert re.search(f"^{message}", str(found.value)), found.value


def test_a_folder_is_no_list_and_a_list_no_folder(pictures, files, tmp_path):
    with pytest.raises(UserError, match="is a folder, not a list of images; try data=folder"):
        listed(pictures)
    with pytest.raises(UserError, match="not a folder; a list of images is data=list"):
        source(write(tmp_path, f"file\n{files[0]}\n"))


def test_file_names_that_begin_with_a_tilde(files, tmp_path):
    (tmp_path / "~x.png").write_bytes((tmp_path / files[0]).read_bytes())
    path = write(tmp_path, "file\n~x.png\n")
    assert names(listed(path, "data.val_fraction=0").train) == ["~x.png"]


def test_a_split_without_validation_images(files, tmp_path):
    path = write(tmp_path, "file,split\n" + "".join(f"{name},train\n" for name in files[:8]))
    found = listed(path, "data.val_fraction=0.25")
    assert (len(found.train), len(found.val)) == (6, 2)
    assert found.notes == ["no image is of the split val; data.val_fraction of the others are held out"]


def test_values_in_parquet(files, tmp_path):
    """Missing ones make floats of whole numbers; pandas adds its index; pictures are no text."""
    pyarrow = pytest.importorskip("pyarrow", reason="an extra")
    from pyarrow import parquet

    columns = {"file": files[:3], "grade": [10.0, float("nan"), 2.0], "__index_level_0__": [4, 5, 6]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "images.parquet")
    found = listed(tmp_path / "images.parquet", "data.val_fraction=0")
    assert found.classes == {"grade": ["2", "10"]}
    assert dict(found.train.labels) == {"grade": [1, UNLABELLED, 0]}
    parquet.write_table(pyarrow.table({"image": [{"bytes": b"x", "path": "a"}]}), tmp_path / "images.parquet")
    with pytest.raises(UserError, match=r"column image holds struct<.*>, not text or numbers; leave it out$"):
        listed(tmp_path / "images.parquet")


@pytest.mark.integration
def test_a_run(files, tmp_path, invoke):
    """The run and its evaluation, from elsewhere."""
    path = write(tmp_path, "file,class\n" + "".join(f"{name},{at % 2}\n" for at, name in enumerate(files)))
    tiny = ["data.image_size=32", "model.patch_size=4", "model.width=24", "model.heads=2", "model.depth=1",
            "predictor.width=24", "predictor.depth=1", "data.batch_size=4", "data.workers=0", "schedule.max_steps=2",
            "schedule.warmup_steps=1", "hardware=cpu", "data.val_fraction=0.3"]  # fmt: skip
    code, _, error = invoke("train.py", "data=list", f"data.root={path.name}", *tiny, f"run_dir={tmp_path / 'run'}")
    assert code == 0, error
    (tmp_path / "other").mkdir()
    os.chdir(tmp_path / "other")
    code, out, error = invoke("evaluate.py", f"checkpoint={tmp_path / 'run'}", "task=knn", "hardware=cpu",
                              "data.workers=0", "task.knn.k=[3]", "task.knn.headline=3")  # fmt: skip
    assert code == 0, error
    assert "knn3" in out
