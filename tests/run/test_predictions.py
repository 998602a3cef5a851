"""predict.py: the classes of new images, from a classifier that evaluate.py has left."""

import csv
import os
import re
import shutil
import subprocess

import numpy as np
import preloaded
import pytest
from helpers import ROOT, command
from PIL import Image

import ijepa
from benchmarks import predictions as benchmark
from ijepa.run import predictions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def classified(finished, pictures):
    """A run with a classifier of two label sets in its folder."""
    folder, _ = finished
    files = sorted(pictures.rglob("*.png"))
    lines = [f"{path.relative_to(pictures)},{path.parent.name},{path.stem[-1]}" for path in files]
    (folder / "labels.csv").write_text("\n".join(["file,class,digit", *lines]))
    result = command("evaluate.py", f"checkpoint={folder}", "task=logistic", f"data.labels={folder / 'labels.csv'}",
                     "baselines=false", "data.workers=0")  # fmt: skip
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def new(pictures, tmp_path):
    """New images in folders, one of them damaged, and a file that is none."""
    shutil.copytree(pictures / "val", tmp_path / "new")
    (tmp_path / "new" / "a,b.png").write_bytes(b"\x89PNG no more")
    (tmp_path / "new" / "note.txt").write_text("no image")
    return tmp_path / "new"


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_predictions(classified, new, invoke, tmp_path):
    output = tmp_path / "out" / "found.csv"
    arguments = [f"checkpoint={classified}", f"data.root={new}", "data.workers=0", f"output={output}"]
    code, out, error = invoke("predict.py", *arguments, "data.batch_size=3")
    assert code == 0, error
    assert "predicts class (2 classes), digit (10 classes) of 9 images in" in out
    assert "1 files are not images and were skipped: note.txt" in out
    assert "unreadable, without a class: 1 of 9:" in out
    assert re.search(rf"written  {output}: 9 images, \d+ images/s", out)
    found = rows(output)
    assert list(found[0]) == ["file", "class", "class_probability", "digit", "digit_probability", "error"]
    classifier = ijepa.load_classifier(classified)
    good = [row for row in found if row["file"] != "a,b.png"]
    assert {row["file"] for row in found} == {path.relative_to(new).as_posix() for path in new.rglob("*.png")}
    for name in ("class", "digit"):
        expected = classifier.predict([new / row["file"] for row in good], name)
        assert [row[name] for row in good] == [prediction.name for prediction in expected]
        probabilities = [float(row[f"{name}_probability"]) for row in good]
        assert probabilities == pytest.approx([prediction.probability for prediction in expected], abs=1e-5)
    (bad,) = (row for row in found if row["file"] == "a,b.png")
    assert bad["class"] == bad["class_probability"] == ""
    assert "a,b.png" in bad["error"]
    code, _, error = invoke("predict.py", *arguments)
    assert code == 2
    assert "found.csv: exists; choose another name, or add overwrite=true" in error
    code, _, error = invoke("predict.py", *arguments, "overwrite=true", "labels=[class]", "probabilities=true")
    assert code == 0, error
    assert list(rows(output)[0]) == ["file", "class", "probability", "probability_cold", "probability_warm", "error"]
    for row in rows(output):
        if not row["error"]:
            assert float(row[f"probability_{row['class']}"]) == float(row["probability"])
            assert float(row["probability_cold"]) + float(row["probability_warm"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("value", [1e20, 1e38])
def test_an_extreme_value_is_the_image_s_fault(classified, new, invoke, tmp_path, value):
    """One finite pixel whose probabilities would be NaN: that file has no class, all others have one."""
    values = np.random.default_rng(0).random((40, 52, 3), np.float32)
    np.save(new / "usual.npy", values)
    values[3, 4] = value
    np.save(new / "extreme.npy", values)
    output = tmp_path / "found.csv"
    code, out, error = invoke("predict.py", f"checkpoint={classified}", f"data.root={new}", f"output={output}")
    assert code == 0, error
    assert "unreadable, without a class: 2 of 11:" in out
    found = {row["file"]: row for row in rows(output)}
    assert "standard deviations from the mean in training, more than 10000; repair it" in found["extreme.npy"]["error"]
    assert [name for name, row in found.items() if not row["class"]] == ["a,b.png", "extreme.npy"]


def test_a_single_image(classified, pictures, invoke, tmp_path):
    image = next((pictures / "val" / "warm").iterdir())
    code, _, error = invoke("predict.py", f"checkpoint={classified}", f"data.root={image}", "data.workers=0",
                            f"output={tmp_path / 'one.csv'}")  # fmt: skip
    assert code == 0, error
    assert [row["file"] for row in rows(tmp_path / "one.csv")] == [image.name]
    parquet = pytest.importorskip("pyarrow.parquet")
    code, _, error = invoke("predict.py", f"checkpoint={classified}", f"data.root={image}", "data.workers=0",
                            f"output={tmp_path / 'one.parquet'}")  # fmt: skip
    assert code == 0, error
    (row,) = parquet.read_table(tmp_path / "one.parquet").to_pylist()
    (expected,) = rows(tmp_path / "one.csv")
    assert row["class"] == expected["class"]
    assert row["class_probability"] == float(expected["class_probability"])
    assert row["error"] is None


def test_a_stopped_command_resumes(classified, new, invoke, stopped, tmp_path, monkeypatch):
    """Ctrl-C after the second chunk; the table is the same as without it."""
    monkeypatch.setattr(predictions, "CHUNK", 1)
    arguments = [f"checkpoint={classified}", f"data.root={new}", "data.workers=0", "data.batch_size=2"]
    assert invoke("predict.py", *arguments, f"output={tmp_path / 'whole.csv'}")[0] == 0
    output = tmp_path / "found.csv"
    out = stopped(4, *arguments, f"output={output}")
    assert "stopped after 4 of 9 images; the same command resumes" in out
    assert not output.exists()
    code, out, error = invoke("predict.py", *arguments, f"output={output}")
    assert code == 0, error
    assert "resumes  after 4 images" in out
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_kill_and_two_processes(classified, tmp_path):
    """SIGKILL in the middle; two processes then resume what one began, and give the same table."""
    rng = np.random.default_rng(0)
    for index in range(1500):
        path = tmp_path / "many" / f"{index % 7}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 52, 3), dtype=np.uint8)).save(path)
    arguments = [f"checkpoint={classified}", f"data.root={tmp_path / 'many'}", "data.workers=0", "data.batch_size=1",
                 "hardware=cpu"]  # fmt: skip
    result = command("predict.py", *arguments, f"output={tmp_path / 'whole.csv'}")
    assert result.returncode == 0, result.stderr
    output = tmp_path / "found.csv"
    program = [preloaded.python(), str(ROOT / "predict.py"), *arguments, f"output={output}"]
    slowed = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=slowed)
    record = tmp_path / ".found.csv.json"
    while not record.exists() and process.poll() is None:
        pass
    process.kill()
    process.wait()
    assert record.exists()
    assert not output.exists()
    result = command("predict.py", *arguments, f"output={output}", "hardware.strategy=ddp", "hardware.devices=2",
                     OMP_NUM_THREADS="1")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "resumes  after " in result.stdout
    whole, found = rows(tmp_path / "whole.csv"), rows(output)
    assert [row["file"] for row in found] == [row["file"] for row in whole]
    assert [row["class"] for row in found] == [row["class"] for row in whole]
    for row, expected in zip(found, whole, strict=True):
        assert float(row["class_probability"]) == pytest.approx(float(expected["class_probability"]), abs=1e-5)


def test_a_sweep_over_folders(classified, pictures, tmp_path):
    """A table for each job."""
    folders = [pictures / "val" / kind for kind in ("cold", "warm")]
    result = command("predict.py", "-m", f"checkpoint={classified}", f"data.root={folders[0]},{folders[1]}",
                     "data.workers=0", f"output={tmp_path / 'found.csv'}")  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = sorted(tmp_path.glob("found_*.csv"))
    assert [len(rows(path)) for path in found] == [4, 4]


def test_the_benchmark(classified, new, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    benchmark.main([f"checkpoint={classified}", f"data.root={new}", "data.workers=0"])
    assert re.search(r"median \d+\.\d+ ", capsys.readouterr().out)


def test_mistakes(classified, finished, pictures, new, invoke, tmp_path):
    def error(*arguments):
        code, _, text = invoke("predict.py", *arguments)
        assert code == 2
        return text

    checkpoint, root = f"checkpoint={classified}", f"data.root={new}"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "checkpoint is not set; add checkpoint=RUN_DIR" in error(root)
    assert "data.root is not set; add data.root=FOLDER" in error(checkpoint)
    assert f"data.root={empty}: no image (.jpg" in error(checkpoint, f"data.root={empty}")
    assert "data.root=nowhere: no such folder or file" in error(checkpoint, "data.root=nowhere")
    assert "no such file; python evaluate.py checkpoint=RUN_DIR task=logistic" in error(f"checkpoint={empty}", root)
    assert "holds no classifier" in error(f"checkpoint={classified / 'encoder.safetensors'}", root)
    assert "labels=[weather]: the classifier has class, digit" in error(checkpoint, root, "labels=[weather]")
    assert "labels=[2024_01]: the classifier has class, digit" in error(checkpoint, root, "labels=[2024_01]")
    assert "output=a.txt: should end in .csv or .parquet" in error(checkpoint, root, "output=a.txt")
    assert "data.rot=x: no such key; did you mean data.root?" in error(checkpoint, "data.rot=x")
    assert "data=folder: " in error(checkpoint, "data=folder")
