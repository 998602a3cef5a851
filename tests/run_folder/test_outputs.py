"""Folders that this software has written are no images."""

import shutil

import pytest
from helpers import command
from image_files import source

from ijepa.run import outputs
from ijepa.util.errors import UserError

pytestmark = pytest.mark.slow


def test_own_output_is_no_input(finished, pictures, tmp_path, invoke):
    """A run, a sweep's, an evaluation and predicted maps among the images."""
    folder, _ = finished
    root = tmp_path / "images"
    shutil.copytree(pictures / "train", root)
    shutil.copytree(folder, root / "runs" / "first")
    assert list((root / "runs").rglob("*.png"))
    code, _, error = invoke("evaluate.py", f"checkpoint={folder}", "task=retrieval", "baselines=false",
                            "data.workers=0", f"output={root / 'found'}")  # fmt: skip
    assert code == 0, error
    assert list((root / "found").rglob("*.png"))
    (root / "maps").mkdir()
    (root / "maps" / "maps.csv").write_text("file,map,error\na.jpg,a.png,\n")
    shutil.copy(next(root.rglob("train-*.png")), root / "maps" / "a.png")
    found = source(root, "data.val_fraction=0")
    assert len(found.train) == 24
    assert found.classes == {"class": ["cold", "warm"]}
    assert found.notes == [
        f"skipped, an evaluation, not images: {root}/found",
        f"skipped, predicted maps, not images: {root}/maps",
        f"skipped, a run, not images: {root}/runs/first",
    ]
    for path, kind in ((root / "runs" / "first", "a run"), (root / "found", "an evaluation")):
        with pytest.raises(UserError, match=rf"^data.root=.*: is the folder of {kind}, not of images"):
            source(path)


def test_an_evaluation_that_did_not_finish(finished, pictures, tmp_path, invoke, monkeypatch):
    """As after a kill: it has written pictures, but no results."""
    root = tmp_path / "images"
    shutil.copytree(pictures / "train", root)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs, "report", killed)
    code, _, _ = invoke("evaluate.py", f"checkpoint={finished[0]}", "task=retrieval", "baselines=false",
                        "data.workers=0", f"output={root / 'found'}")  # fmt: skip
    assert code == 130
    assert list((root / "found").rglob("*.png"))
    found = source(root, "data.val_fraction=0")
    assert found.classes == {"class": ["cold", "warm"]}
    assert found.notes == [f"skipped, an evaluation that did not finish, not images: {root}/found"]


def test_a_users_files_of_such_names_change_nothing(pictures, tmp_path):
    for name, text in {"config.yaml": "a: 1", "metrics.json": '{"results": 1}', "maps.csv": "x,y", "sweep.json": "[",
                       "metrics.csv": ""}.items():  # fmt: skip
        root = tmp_path / name.replace(".", "-")
        shutil.copytree(pictures / "train", root)
        (root / "cold" / name).write_text(text)
        assert len(source(root, "data.val_fraction=0").train) == 24


def test_a_run_inside_its_images_resumes(pictures, tmp_path):
    """run_dir inside data.root: the run's pictures do not become images of the next one."""
    root = tmp_path / "images"
    shutil.copytree(pictures, root)
    arguments = ["data=folder", f"data.root={root}", "experiment=smoke", "data.image_size=16", "model.patch_size=4",
                 "data.workers=0", "data.batch_size=8", "callbacks.baselines=false", "hardware=cpu",
                 "schedule.warmup_steps=0"]  # fmt: skip
    for name in ("a", "b"):
        result = command("train.py", *arguments, f"run_dir={root}/runs/{name}", "schedule.max_steps=2")
        assert result.returncode == 0, result.stderr
    result = command("train.py", f"resume={root}/runs/a", "schedule.max_steps=3", "force=true")
    assert result.returncode == 0, result.stderr
