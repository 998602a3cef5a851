"""evaluate.py on whole runs and on foreign files; every kind of data from pretraining to evaluation."""

import csv
import importlib.util
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from helpers import TINY, train_config
from PIL import Image

import ijepa
from ijepa.cli import statistics
from ijepa.data import sources

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("task", ["knn", "logistic"])
def test_evaluate(finished, invoke, pictures, tmp_path, task):
    folder, _ = finished
    code, _, _ = invoke("evaluate.py", f"checkpoint={folder}", f"task={task}")
    assert code == 0
    written = json.loads((folder / "evaluation" / task / "metrics.json").read_text())
    assert set(written["results"]) == {"target encoder", "random init", "raw pixels"}
    assert written["images"] == {"train": 24, "val": 8}
    if task == "knn":  # the same protocol as at the end of training
        summary = json.loads((folder / "summary.json").read_text())
        assert written["results"]["target encoder"].items() <= summary["results"]["target encoder"].items()
    arguments = [f"checkpoint={folder}/checkpoints/last.ckpt", f"task={task}", "encoder=context", "baselines=false",
                 "data=folder", f"data.root={pictures}", "data.image_size=[32,48]", f"output={tmp_path}"]  # fmt: skip
    code, _, _ = invoke("evaluate.py", *arguments)
    assert code == 0
    assert set(json.loads((tmp_path / "metrics.json").read_text())["results"]) == {"context encoder"}


def test_a_classifier_is_left_and_agrees_with_the_metrics(finished, invoke, pictures, tmp_path):
    folder, _ = finished
    arguments = ["task=[knn,logistic]", "layers=2", "task.logistic.holdout=0.4", f"output={tmp_path}"]
    code, output, error = invoke("evaluate.py", f"checkpoint={folder}", *arguments)
    assert code == 0, error
    assert f"written  {tmp_path / 'classifier.safetensors'}" in output
    classifier = ijepa.load_classifier(tmp_path)
    assert classifier.classes == {"class": ["cold", "warm"]}
    assert classifier.description.label_sets["class"].temperature is None  # too few images
    files = sorted((pictures / "val").rglob("*.png"))
    found = classifier.predict(files)
    right = [prediction.name == file.parent.name for prediction, file in zip(found, files, strict=True)]
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["results"]["target encoder"]["logistic"] == pytest.approx(sum(right) / len(right))
    assert len(list(tmp_path.glob("classifier*"))) == 1  # none of the baselines


def test_labels_of_some_images_in_a_file(finished, invoke, pictures, tmp_path):
    """The same results as in folders that hold only the images with a label; the others are still exported."""
    folder, _ = finished
    chosen = [path for part, count in (("train", 9), ("val", 3)) for kind in ("cold", "warm")
              for path in sorted((pictures / part / kind).iterdir())[:count]]  # fmt: skip
    lines = [f"{path.relative_to(pictures)},{path.parent.name},{path.parent.name if i % 2 else ''}"
             for i, path in enumerate(chosen)]  # fmt: skip
    (tmp_path / "labels.csv").write_text("\n".join(["file,class,half", *lines]))
    for path in chosen:
        (tmp_path / "few" / path.parent.relative_to(pictures)).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "few" / path.relative_to(pictures))
    arguments = [f"checkpoint={folder}", "data=folder", "data.image_size=[32,48]", "data.workers=0",
                 "task.linear.epochs=2", "task.linear.layers=[1,2]"]  # fmt: skip
    named = [f"data.root={pictures}", f"data.labels={tmp_path / 'labels.csv'}", f"output={tmp_path / 'named'}"]
    code, output, error = invoke("evaluate.py", *arguments, *named, "task=[knn,logistic,linear,features,retrieval]",
                                 "task.linear.labels=[half]")  # fmt: skip
    assert code == 0, error
    assert "labels   half: 9 of the 24 training images have one" in output
    few = [f"data.root={tmp_path / 'few'}", f"output={tmp_path / 'found'}", "task=[knn,logistic,linear]"]
    assert invoke("evaluate.py", *arguments, *few)[0] == 0
    named, found = (
        json.loads((tmp_path / name / "metrics.json").read_text())["results"] for name in ("named", "found")
    )
    for model, expected in found.items():
        del expected["linear"]  # task.linear.labels
        assert {name: named[model][f"class/{name}"] for name in expected} == expected
        assert "class/linear" not in named[model]
        assert named[model]["half/knn20"] >= 0
        assert named[model]["half/linear"] >= 0
    for name in ("class", "half"):
        assert list(ijepa.load_classifier(tmp_path / "named" / f"classifier-logistic-{name}.safetensors").classes) == [
            name
        ]
    with np.load(tmp_path / "named" / "features.npz") as features:
        assert len(features["features"]) == 32
        assert (features["label_class"] == -1).sum() == 32 - 24


def test_evaluations_do_not_replace_each_other(finished, invoke):
    folder, _ = finished
    for changes in ((), ("encoder=context",), ("data.image_size=32",)):
        assert invoke("evaluate.py", f"checkpoint={folder}", "baselines=false", *changes)[0] == 0
    path = next((folder / "checkpoints").glob("step-*.ckpt"))
    assert invoke("evaluate.py", f"checkpoint={path}", "baselines=false")[0] == 0
    expected = {"knn", "knn_encoder-context", "knn_data.image_size-32", f"knn_{path.stem}"}
    assert expected <= {place.name for place in (folder / "evaluation").iterdir()}


def test_several_tasks_in_one_command(finished, invoke, tmp_path):
    folder, _ = finished
    code, output, error = invoke("evaluate.py", f"checkpoint={folder}", "task=[knn,lowshot,linear]", "layers=2",
                                 "task.linear.epochs=2", "task.linear.layers=[1,2]", "task.lowshot.shots=[2]",
                                 f"cache={tmp_path / 'cache'}", f"output={tmp_path}")  # fmt: skip
    assert code == 0, error
    written = json.loads((tmp_path / "metrics.json").read_text())
    for name in ("target encoder", "random init", "raw pixels"):
        results, intervals = written["results"][name], written["intervals"][name]
        assert {"knn20", "lowshot_1pct", "lowshot_2shot", "linear"} <= results.keys()
        for metric, (low, high) in intervals.items():
            assert 0 <= low <= results[metric] <= high <= 1
        assert len(written["details"][name]["linear"]["class"]["heads"]) == (20 if name == "raw pixels" else 40)
        assert written["details"][name]["lowshot"]["class"]["lowshot_2shot"]["images"] == 4
    assert written["config"]["task"]["linear"]["epochs"] == 2  # the protocol stands with its results
    low, high = (100 * bound for bound in written["intervals"]["target encoder"]["linear"])
    assert f"({low:.1f}-{high:.1f})" in output
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 4  # two encoders, training and validation


def test_random_weights_are_a_checkpoint_too(pictures, tmp_path, invoke, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = ["data=folder", f"data.root={pictures}", "data.image_size=16", "data.workers=0"]
    code, _, error = invoke("evaluate.py", "checkpoint=random", *images)
    assert code == 0, error
    code, output, error = invoke("evaluate.py", "checkpoint=random", "model=vit_tiny", "model.patch_size=8", *images)
    assert code == 0, error
    assert "random init" in output
    assert "raw pixels" in output
    assert len(list((tmp_path / "evaluation").iterdir())) == 2
    code, _, error = invoke("evaluate.py", "checkpoint=random", "model.patch_size=5", *images)
    assert (code, error.startswith("error: model.patch_size=5: does not divide")) == (2, True)


def test_features_to_take_elsewhere(finished, pictures, tmp_path, invoke):
    """Of any folder; labels are no condition."""
    folder, _ = finished
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted((pictures / "train").rglob("*.png"))[:6]:
        shutil.copyfile(path, flat / path.name)
    for root, rows in ((flat, 6), (pictures, 32)):
        arguments = ["task=features", "data=folder", f"data.root={root}", "data.val_fraction=0"]
        code, output, error = invoke("evaluate.py", f"checkpoint={folder}", *arguments, f"output={tmp_path}")
        assert code == 0, error
        assert str(tmp_path / "features.npz") in output
        written = np.load(tmp_path / "features.npz")
        assert written["features"].shape == (rows, 24)
        assert (written["part"] == "train").sum() == rows - (8 if root == pictures else 0)
        encoder = ijepa.load_encoder(folder)
        with Image.open(written["name"][3]) as image:
            expected = encoder(encoder.transform(image)[None]).mean(dim=1)[0]
        np.testing.assert_allclose(written["features"][3], expected, atol=1e-5)
    assert written["class_class"][written["label_class"][3]] in written["name"][3]
    if importlib.util.find_spec("pyarrow") is None:
        code, _, error = invoke("evaluate.py", f"checkpoint={folder}", *arguments, "task.features.format=parquet")
        assert code == 2
        assert "pip install pyarrow" in error


def test_features_as_parquet(finished, pictures, tmp_path, invoke):
    parquet = pytest.importorskip("pyarrow.parquet")
    arguments = ["task=features", "task.features.format=parquet", "data=folder", f"data.root={pictures}"]
    assert invoke("evaluate.py", f"checkpoint={finished[0]}", *arguments, f"output={tmp_path}")[0] == 0
    table = parquet.read_table(tmp_path / "features.parquet").to_pydict()
    assert len(table["name"]) == 32
    assert len(table["features"][0]) == 24
    assert all(label in name for label, name in zip(table["class_class"], table["name"], strict=True))


def test_retrieval_draws_neighbours(finished, pictures, tmp_path, invoke):
    folder, _ = finished
    arguments = ["task=retrieval", "task.retrieval.neighbours=3", f"output={tmp_path}"]
    code, output, error = invoke("evaluate.py", f"checkpoint={folder}", *arguments)
    assert code == 0, error
    for name in ("target-encoder", "random-init", "raw-pixels"):
        with Image.open(tmp_path / f"retrieval-{name}.png") as image:
            assert image.width > 300
        assert f"retrieval-{name}.png" in output
    assert 0 <= json.loads((tmp_path / "metrics.json").read_text())["results"]["target encoder"]["retrieval3"] <= 1
    with (tmp_path / "neighbours.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 8 * 3
    assert len({line["query"] for line in lines}) == 8
    for line in lines:
        assert f"/val/{line['query_class']}/" in line["query"]
        assert f"/train/{line['file_class']}/" in line["file"]
    assert [line["rank"] for line in lines] == ["1", "2", "3"] * 8
    cosines = np.array([float(line["cosine"]) for line in lines]).reshape(8, 3)
    assert (np.diff(cosines, axis=1) <= 0).all()
    flat = tmp_path / "flat"
    shutil.copytree(pictures / "train" / "cold", flat)
    images = ["data=folder", f"data.root={flat}", "data.val_fraction=0.5", "baselines=false"]
    assert invoke("evaluate.py", f"checkpoint={folder}", *arguments, *images)[0] == 0  # without labels, too


def test_neighbours_of_other_images(finished, pictures, tmp_path, invoke):
    folder, _ = finished
    shutil.copytree(pictures / "val" / "warm", tmp_path / "new")
    (tmp_path / "new" / "broken.png").write_bytes(b"no image")
    np.save(tmp_path / "new" / "extreme.npy", np.full((40, 52, 3), 1e30, np.float32))
    arguments = [f"checkpoint={folder}", "task=retrieval", "baselines=false", f"output={tmp_path / 'found'}"]
    code, out, error = invoke("evaluate.py", *arguments, f"task.retrieval.query={tmp_path / 'new'}")
    assert code == 0, error
    assert re.search(r"unreadable, skipped among the queries: .*extreme.npy \(values from 1e\+30", out)
    with (tmp_path / "found" / "neighbours.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["query", "rank", "file", "cosine", "file_class"]
    assert {line["query"] for line in lines} == {str(tmp_path / "new" / f"val-{i}.png") for i in range(4)}
    for query, problem in (("nowhere", "no such file or folder"), (tmp_path, "no image there can be read")):
        if query == tmp_path:
            query = tmp_path / "bad"
            query.mkdir()
            (query / "broken.png").write_bytes(b"no image")
        code, _, error = invoke("evaluate.py", *arguments, f"task.retrieval.query={query}")
        assert (code, problem in error) == (2, True), error


def test_near_duplicates(finished, pictures, tmp_path, invoke):
    """Two copies of a training image, one among the validation images, which are all copies of training images."""
    folder, _ = finished
    root = tmp_path / "images"
    shutil.copytree(pictures, root)
    shutil.copy(root / "train" / "cold" / "train-9.png", root / "val" / "warm" / "copy.png")
    shutil.copy(root / "train" / "cold" / "train-9.png", root / "train" / "warm" / "$copy$.png")
    arguments = [f"checkpoint={folder}", "data=folder", f"data.root={root}", "data.image_size=[16,24]",
                 "task=duplicates", f"output={tmp_path / 'found'}"]  # fmt: skip
    code, output, error = invoke("evaluate.py", *arguments, "task.duplicates.threshold=0.9999")
    assert code == 0, error
    assert "11 pairs of images have a cosine similarity of 0.9999 or more" in output
    with (tmp_path / "found" / "duplicates.csv").open() as file:
        lines = list(csv.DictReader(file))
    names = {frozenset(os.path.basename(line[name]) for name in ("file", "other")) for line in lines}  # noqa: PTH119
    copies = {frozenset(pair) for pair in (("train-9.png", "copy.png"), ("train-9.png", "$copy$.png"),
                                           ("$copy$.png", "copy.png"))}  # fmt: skip
    assert names == copies | {frozenset((f"train-{i}.png", f"val-{i}.png")) for i in range(4)}
    written = json.loads((tmp_path / "found" / "metrics.json").read_text())
    assert written["details"]["target encoder"]["duplicates"][""] == {
        "pairs": 11, "pairs_across": 10, "val_in_train": 9, "listed": 11, "images": {"train": 25, "val": 9},
    }  # fmt: skip
    with Image.open(tmp_path / "found" / "duplicates.png") as image:
        assert image.width > 300
    code, output, _ = invoke("evaluate.py", *arguments, "task.duplicates.threshold=1", "task.duplicates.max_pairs=1",
                             "data.val_fraction=0", f"data.root={root / 'train'}")  # fmt: skip
    assert code == 0
    assert "1 pairs of images have a cosine similarity of 1 or more" in output
    assert "validation images have" not in output


def test_a_run_without_labels_whose_task_has_no_result_ends_well(pictures, tmp_path, invoke):
    flat = tmp_path / "flat"
    shutil.copytree(pictures / "train" / "cold", flat)
    images = ["data=folder", f"data.root={flat}", "data.val_fraction=0.3", "data.image_size=16", "data.batch_size=4"]
    code, _, error = invoke("train.py", *images, *TINY, "model.patch_size=4", "task=retrieval", "schedule.max_steps=1",
                            "schedule.warmup_steps=0", f"run_dir={tmp_path / 'run'}")  # fmt: skip
    assert code == 0, error
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["results"] == {"target encoder": {}}


def test_an_unreadable_file_counts_once(pictures, tmp_path, invoke):
    root = tmp_path / "images"
    shutil.copytree(pictures, root)
    broken = root / "train" / "cold" / "broken.png"
    broken.write_bytes((root / "train" / "cold" / "train-0.png").read_bytes()[:60])
    (root / "train" / "cold" / os.fsdecode(b"note\xff.txt")).write_text("x")
    folder = tmp_path / "run"
    code, output, _ = invoke("train.py", "data=folder", f"data.root={root}", "data.image_size=16",
                             "model.patch_size=4", "data.batch_size=8", f"run_dir={folder}", *TINY,
                             "schedule.max_steps=4")  # fmt: skip
    assert code == 0
    assert "1 files could not be read" in output
    summary = json.loads((folder / "summary.json").read_text())
    assert len(summary["unreadable"]) == 1
    assert summary["unreadable"][0].startswith(str(broken))
    assert summary["not_images"] == [str(root / "train" / "cold" / os.fsdecode(b"note\xff.txt"))]


def test_evaluation_holds_out_what_training_held_out(invoke, pictures, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    images = ["data=folder", f"data.root={pictures / 'train'}", "data.val_fraction=0.25", "data.image_size=16",
              "model.patch_size=4"]  # fmt: skip
    assert invoke("train.py", *images, *TINY, "seed=5", f"run_dir={folder}")[0] == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert invoke("evaluate.py", f"checkpoint={folder}", "baselines=false")[0] == 0
    written = json.loads((folder / "evaluation" / "knn" / "metrics.json").read_text())
    assert written["results"]["target encoder"].items() <= summary["results"]["target encoder"].items()
    split = sources.build(train_config(*images, *TINY, "seed=5").data, 5)
    other = sources.build(train_config(*images, *TINY).data, 0)
    assert [split.val.name(i) for i in range(6)] != [other.val.name(i) for i in range(6)]


def test_evaluate_the_reference_s_checkpoint(checkpoint_file, pictures, tmp_path, invoke, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = invoke("evaluate.py", f"checkpoint={checkpoint_file}", "heads=3")
    assert (code, error.count("\n")) == (2, 1)
    assert "data=folder" in error
    given = (f"checkpoint={checkpoint_file}", "heads=3", "data=folder", f"data.root={pictures}")
    code, output, _ = invoke("evaluate.py", *given)
    assert code == 0
    assert "random init" in output
    name = f"reference-checkpoint.pth_knn_heads-3_data-folder_data.root-{str(pictures).replace('/', '-')}"
    assert (tmp_path / "evaluation" / name / "metrics.json").exists()
    assert not (checkpoint_file.parent / "evaluation").exists()


@pytest.fixture
def evaluated(invoke, tmp_path):
    """Pretrains on a folder of two classes, evaluates with both tasks; the run's folder and the results."""

    def run(*arguments):
        folder = tmp_path / "run"
        code, _, error = invoke("train.py", *arguments, "model.patch_size=8", *TINY, "data.batch_size=8",
                                "hardware.precision=32-true", f"run_dir={folder}")  # fmt: skip
        assert code == 0, error
        assert not json.loads((folder / "summary.json").read_text())["unreadable"]
        results = {}
        for task in ("knn", "logistic"):
            code, _, error = invoke("evaluate.py", f"checkpoint={folder}", f"task={task}")
            assert code == 0, error
            results[task] = json.loads((folder / "evaluation" / task / "metrics.json").read_text())["results"]
            assert set(results[task]) == {"target encoder", "random init", "raw pixels"}
        return folder, results

    return run


def classes_of_arrays(root, shape, dtype):
    """A dark and a light class of 12 images each: name and values."""
    for label, name in enumerate(("dark", "light")):
        (root / name).mkdir(parents=True)
        for i in range(12):
            values = np.random.default_rng(12 * label + i).normal(0.3 + 0.4 * label, 0.05, shape)
            yield root / name / str(i), (values.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


def test_a_format_of_16_bits_pretrains_and_evaluates(evaluated, tmp_path):
    """Grey TIFFs of 96x160."""
    root = tmp_path / "images"
    for path, values in classes_of_arrays(root, (96, 160), np.uint16):
        Image.fromarray(values).save(path.with_suffix(".tif"))
    folder, results = evaluated(
        "data=folder", f"data.root={root}", "data.channels=1", "data.mean=[0.5]", "data.std=[0.2]",
        "data.image_size=[96,160]", "data.val_fraction=0.25",
    )  # fmt: skip
    assert results["logistic"]["raw pixels"]["logistic"] == 1
    encoder = ijepa.load_encoder(folder)
    values = np.full((96, 160), 300, np.uint16)  # below what 8 bits can tell apart from 257
    image = encoder.transform(Image.fromarray(values))
    assert image.shape == (1, 96, 160)
    assert image.unique().tolist() == [pytest.approx(300 / 65535)]
    assert encoder(image[None]).shape == (1, 240, 24)


def test_a_format_of_12_channels_pretrains_and_evaluates(evaluated, invoke, tmp_path, monkeypatch):
    """Arrays whose statistics are measured first."""
    root = tmp_path / "images"
    for path, values in classes_of_arrays(root, (12, 40, 36), np.uint8):
        np.save(path.with_suffix(".npy"), values)
    monkeypatch.setattr(statistics, "OPTIONS", tmp_path / "conf" / "data")
    size = ["data.channels=12", "data.image_size=32", "data.val_fraction=0.25", "data.workers=0"]
    code, _, error = invoke("statistics", f"data.root={root}", *size, "name=bands")
    assert code == 0, error
    folder, results = evaluated("--config-dir", tmp_path / "conf", "data=bands")
    assert results["logistic"]["raw pixels"]["logistic"] == 1
    encoder = ijepa.load_encoder(folder)
    assert len(encoder.spec.mean) == 12
    image = encoder.transform(torch.rand(12, 50, 70))
    assert encoder(image[None]).shape == (1, 16, 24)
    same = ijepa.load_encoder(folder / "checkpoints" / "last.ckpt")
    torch.testing.assert_close(same(image[None]), encoder(image[None]), atol=1e-6, rtol=0)
