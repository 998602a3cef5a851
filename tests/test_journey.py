"""The journey of docs/journey.md as it is typed: from images without labels to a classifier in ONNX."""

import csv
import json
import re
import shlex
import shutil

import numpy as np
import onnxruntime
import pytest
from helpers import ROOT, TINY

import ijepa
from ijepa.data.decode import read_picture
from ijepa.interop.command import main as interop

pytestmark = pytest.mark.slow


def test_the_journey(pictures, tmp_path, invoke, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = sorted(pictures.rglob("*.png"))
    for part in ("images", "new"):
        (tmp_path / part).mkdir()
    for number, path in enumerate(files):  # no class folders: the names say nothing
        shutil.copy(path, tmp_path / ("new" if number % 4 == 0 else "images") / f"{number:03}.png")
    classes = {f"{number:03}.png": path.parent.name for number, path in enumerate(files)}
    labelled = [name for name in sorted(classes) if (tmp_path / "images" / name).exists()]
    lines = [f"{name},{classes[name]}" for name in labelled[:22]]
    (tmp_path / "labels.csv").write_text("\n".join(["file,class", *lines]))
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "journey.md").read_text(), flags=re.DOTALL)
    commands = [shlex.split(line) for line in block.replace("IMAGES", "images").replace("NEW", "new").splitlines()]
    assert [command[1] for command in commands] == ["train.py", "evaluate.py", "evaluate.py", "predict.py", "-m"]
    small = {
        "train.py": [*TINY, "data.image_size=16", "model.patch_size=4", "data.batch_size=8", "data.val_fraction=0.3",
                     "callbacks.evaluate_every_epochs=null"],
        "predict.py": ["data.workers=0"],
    }  # fmt: skip
    for _, script, *arguments in commands:
        if script == "-m":
            assert interop(arguments[1:]) == 0
            continue
        code, output, error = invoke(script, *arguments, *small.get(script, []))
        assert code == 0, error
        if "task=logistic" in arguments:
            assert "labels   class: " in output
    with (tmp_path / "predictions.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["file"] for row in found] == sorted(path.name for path in (tmp_path / "new").iterdir())
    assert {row["class"] for row in found} <= {"cold", "warm"}
    session = onnxruntime.InferenceSession(tmp_path / "classifier.onnx")
    names = json.loads(session.get_modelmeta().custom_metadata_map["classes"])["class"]
    classifier = ijepa.load_classifier("RUN_DIR")
    for row, prediction in zip(found, classifier.predict([f"new/{row['file']}" for row in found]), strict=True):
        image = classifier.transform(read_picture(f"new/{row['file']}", 3))[None]
        (probabilities,) = session.run(None, {"images": image.numpy()})
        assert names[int(np.argmax(probabilities))] == row["class"] == prediction.name
        assert float(row["probability"]) == pytest.approx(probabilities.max(), abs=1e-4)
