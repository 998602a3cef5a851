"""Whole runs, as a user starts them: what they leave."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import ROOT, SMALL, TINY, command, picture, train_config
from omegaconf import OmegaConf
from safetensors.torch import load_file

import ijepa
from ijepa.config import TrainConfig
from ijepa.config.checks import parse
from ijepa.data import sources
from ijepa.data.datamodule import ResumableBatchSampler
from ijepa.run import build, runs

pytestmark = pytest.mark.slow


def test_a_run_s_folder(finished):
    folder, output = finished
    lines = output.splitlines()
    assert lines[0] == lines[-1] == f"run_dir {folder}"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "config.yaml",
        "metrics.csv",
        "checkpoints/last.ckpt",
        "checkpoints/step-000003.ckpt",
        "encoder.safetensors",
        "summary.json",
        "pictures/masks.png",
        "pictures/features.png",
        "pictures/similarity.png",
        "pictures/attention.png",
        "pictures/curves.png",
        "pictures/progress.png",
        "pictures/features/step-000000.png",
        "pictures/features/step-000003.png",
    }
    assert "24 for training, 8 for validation, 2 classes" in output
    assert "context patches per image" in output
    assert "target encoder" in output
    assert "raw pixels" in output
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 3
    assert summary["images"] == 24
    assert set(summary["results"]) == {"target encoder", "random init", "raw pixels"}
    with (folder / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["step"] for row in table] == ["1", "2", "3"]
    assert {"images", "flops", "seconds", "train/loss", "val/knn20"} <= set(table[0])
    assert float(table[-1]["val/knn20"]) == pytest.approx(summary["results"]["target encoder"]["knn20"])
    saved = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    saved.pop("defaults")
    assert parse(TrainConfig, saved).data.image_size == [16, 24]


@pytest.mark.parametrize(("surplus", "prefix"), [("drop", ""), ("keep", "at least ")])
def test_what_is_printed_of_the_masks(tmp_path, capsys, surplus, prefix):
    """With surplus=keep the number of context patches is a minimum."""
    run = build.run(train_config(*SMALL, f"masking.surplus={surplus}"), tmp_path)
    runs._announce(run, resumed=False)
    count = run.data.masking.context_patches
    assert f"masks    multiblock, {prefix}{count} context patches per image\n" in capsys.readouterr().out


def test_the_encoder_from_python(finished):
    folder, _ = finished
    encoder = ijepa.load_encoder(folder)
    images = encoder.transform(picture(1, 50, 70))[None]
    assert images.shape == (1, 3, 16, 24)
    assert 0 <= images.min() < images.max() <= 1
    features = encoder(images)
    assert features.shape == (1, 24, 24)
    same = ijepa.load_encoder(folder / "checkpoints" / "last.ckpt")
    torch.testing.assert_close(same(images), features, atol=1e-6, rtol=0)
    assert not torch.equal(ijepa.load_encoder(folder, encoder="context")(images), features)


def test_a_run_can_be_repeated_from_its_folder(finished, invoke, tmp_path):
    folder, _ = finished
    again = tmp_path / "again"
    code, *_ = invoke("train.py", "--config-dir", folder, "--config-name", "config", f"run_dir={again}")
    assert code == 0
    one, other = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (folder, again))
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][name]), name


def test_a_run_killed_before_its_export_is_completed(invoke, finished, tmp_path):
    folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in ("summary.json", "encoder.safetensors"):
        (copy / name).unlink()
    assert invoke("train.py", f"resume={copy}")[0] == 0
    one, other = (load_file(run / "encoder.safetensors") for run in (folder, copy))
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert json.loads((copy / "summary.json").read_text())["steps"] == 3


def test_a_file_that_only_the_second_device_reads_is_named(pictures, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(pictures, root)
    data = train_config("data=folder", f"data.root={root}").data
    second = next(iter(ResumableBatchSampler(24, 8, 0, 3, 0, accumulation=1, rank=1, world_size=2)))
    broken = Path(sources.build(data, 0).train.name(second[0].image))
    broken.write_bytes(broken.read_bytes()[:-40])
    folder = tmp_path / "run"
    result = command("train.py", "data=folder", f"data.root={root}", "data.image_size=16", "model.patch_size=4",
                     "data.batch_size=8", f"run_dir={folder}", *TINY, "hardware=ddp", "hardware.accelerator=cpu",
                     "task=knn", "task.knn.batch_size=8")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"unreadable, replaced by the next image: {broken}" in result.stdout
    assert any(str(broken) in fault for fault in json.loads((folder / "summary.json").read_text())["unreadable"])


def test_a_sweep_goes_on_when_a_job_is_faulty(tmp_path):
    values = [
        "-m",
        f"run_dir={tmp_path / 'sweep'}",
        "data=digits",
        *TINY,
        "model.patch_size=4,5",
        "optimizer=adamw,adam",
    ]
    result = command("train.py", *values)
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    assert all("optimizer=adam: no such option; did you mean adamw?" in line for line in lines[:2])  # before any trains
    assert "model.patch_size=5: does not divide" in lines[2]
    assert lines[3] == "error: 3 of 4 jobs failed"
    folders = [path for path in (tmp_path / "sweep").iterdir() if (path / "summary.json").exists()]
    assert len(folders) == 1
    assert not set(folders[0].name) & set("=,")


def test_a_sweep_in_which_the_software_is_at_fault_exits_with_1(tmp_path):
    (tmp_path / "faulty_masks.py").write_text("from ijepa.run import build\nbuild.networks = None\n")
    arguments = ["-m", "data=digits", *TINY, "seed=0,1", f"run_dir={tmp_path / 'sweep'}"]
    (tmp_path / "start.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport faulty_masks\n"
                                       "from ijepa.cli import entry\nfrom ijepa.run import runs\n"
                                       "entry.main('train', runs.train)\n")  # fmt: skip
    result = command(tmp_path / "start.py", *arguments)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == "error: 2 of 2 jobs failed"
