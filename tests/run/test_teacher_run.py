"""A run that trains its teacher first: teacher=."""

import json
import os
import shutil
import signal

import pytest
import torch
from helpers import EXACT, TINY, assert_same, command, rows, train_config

import ijepa
from ijepa.callbacks.recorder import Recorder
from ijepa.config import TimmVit
from ijepa.interop.loading import IMAGES_KEY
from ijepa.run.teacher_run import teacher_config
from ijepa.run_folder import RunFolder
from ijepa.util.errors import UserError

SMALL = [value for value in TINY if not value.startswith(("objective=", "model.", "predictor."))]
RUN = ("experiment=student", "data=digits", *SMALL, "model.width=24", "model.depth=2", "predictor.width=12",
       "predictor.depth=1", "teacher.width=12", "teacher.depth=2", "teacher.predictor_width=12",
       "objective.target_depths=[1,2]", "schedule.max_steps=6", "teacher.length=0.5",
       "callbacks.checkpoint_every_steps=1")  # fmt: skip


def contents(folder):
    return torch.load(RunFolder(folder).checkpoints.last, weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was not stopped, and what it printed."""
    folder = tmp_path_factory.mktemp("first") / "run"
    result = command("train.py", *RUN, f"run_dir={folder}")
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


@pytest.mark.integration
def test_one_command_trains_teacher_and_run(whole, invoke):
    folder, said = whole
    teacher = RunFolder(folder).teacher_run
    assert "frozen teacher 0.0 M parameters, width 12" in said
    assert said.count("next:") == 1  # what to do next is said once, at the end
    kept, trained = (ijepa.load_encoder(path).state_dict() for path in (folder / "teacher.safetensors", teacher))
    assert_same(kept, trained, **EXACT)
    steps, spent, seconds = (
        [json.loads((path / "summary.json").read_text())[name] for path in (teacher, folder)]
        for name in ("steps", "flops", "seconds")
    )
    assert steps == [3, 6]
    alone = contents(folder)["callbacks"]["Recorder"]["flops"]
    assert alone == spent[1] > spent[0] > 0  # the teacher's count, too
    assert seconds[1] > seconds[0]
    code, again, _ = invoke("train.py", *RUN, f"run_dir={folder}", "resume=auto")
    assert code == 0
    assert "finished already" in again


@pytest.mark.integration
@pytest.mark.parametrize("steps", [2, 5])
def test_a_stop_in_either_part_changes_nothing(whole, invoke, tmp_path, monkeypatch, steps):
    """After 2 steps the teacher is stopped, after 3 + 2 the run itself."""
    folder, seen, record = tmp_path / "run", [], Recorder.on_train_batch_end

    def stopping(recorder, *arguments):
        record(recorder, *arguments)
        seen.append(recorder)
        if len(seen) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Recorder, "on_train_batch_end", stopping)
    code, _, error = invoke("train.py", *RUN, f"run_dir={folder}")
    assert code == 128 + signal.SIGTERM
    if steps == 2:
        hint = f"run the same command again with run_dir={folder} resume=auto"
        assert error.endswith(f"the teacher stopped after step 2 of 3; {hint}\n")
        assert not RunFolder(folder).config.exists()
        code, _, error = invoke("train.py", f"resume={folder}")
        assert code == 2
        assert error.endswith(f"only its teacher has a checkpoint; {hint}\n")
    code, said, error = invoke("train.py", *RUN, f"run_dir={folder}", "resume=auto")
    assert code == 0, error
    assert said.count("trained first") == (steps == 2)
    pairs = (folder, whole[0]), (RunFolder(folder).teacher_run, RunFolder(whole[0]).teacher_run)
    for path, other in pairs:
        assert_same(contents(path)["state_dict"], contents(other)["state_dict"], **EXACT)
    assert contents(folder)["callbacks"]["Recorder"]["flops"] == contents(whole[0])["callbacks"]["Recorder"]["flops"]


@pytest.mark.integration
def test_the_run_resumes_without_the_folder_of_its_teacher(whole, invoke, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    shutil.rmtree(RunFolder(folder).teacher_run)
    RunFolder(folder).summary.unlink()
    code, _, error = invoke("train.py", f"resume={folder}/checkpoints/last.ckpt")
    assert code == 0, error
    assert not RunFolder(folder).teacher_run.exists()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (["teacher.width=30"], "teacher.width=30: not a multiple of 4 and of teacher.heads=3; try 24"),
        (["teacher.predictor_width=14"], "teacher.predictor_width=14: not a multiple of 4 and of teacher.heads=3"),
        (["teacher.depth=1"], "objective.target_depths=[1,2]: must ascend, and be at most teacher.depth=1; try [1]"),
        (["objective.target_depths=[2,1]"], "objective.target_depths=[2,1]: must ascend"),
        (["objective.teacher=runs/x"], "objective.teacher=runs/x: a teacher is trained already, as configured by"),
        (
            ["objective.target=pixels", "objective.target_depths=null"],
            "objective.target=pixels: is not used with a",
        ),
        (["metric=nothing"], "metric=nothing: "),
        (["hardware.devices=3"], "data.batch_size=64: cannot be divided"),
        (["teacher.steps=1"], "teacher.steps"),
    ],
)
def test_what_would_fail_later_fails_before_the_teacher_is_trained(invoke, tmp_path, changes, problem):
    code, _, error = invoke("train.py", *RUN, *changes, f"run_dir={tmp_path / 'run'}")
    assert code == 2
    assert problem in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.integration
def test_another_teacher_needs_another_folder(whole, invoke, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(RunFolder(whole[0]).teacher_run, RunFolder(folder).teacher_run)
    code, _, error = invoke("train.py", *RUN, "teacher.lr=1e-3", f"run_dir={folder}")
    assert code == 2
    problem = f"teacher: run_dir={folder}/teacher: contains a run with optimizer.lr=0.006, not 0.001; "
    assert error.startswith(f"error: {problem}")


@pytest.mark.integration
def test_a_teacher_of_other_images_is_not_taken(whole, invoke, tmp_path, pictures):
    folder = tmp_path / "run"
    shutil.copytree(RunFolder(whole[0]).teacher_run, RunFolder(folder).teacher_run)
    code, _, error = invoke("train.py", *RUN, "data.val_fraction=0.5", f"run_dir={folder}")
    assert code == 2
    assert "data.val_fraction=0.2, not 0.5" in error
    summary = RunFolder(RunFolder(folder).teacher_run).checkpoints.last
    contents = torch.load(summary, weights_only=True)
    contents[IMAGES_KEY] = {**contents[IMAGES_KEY], "images": 7}
    torch.save(contents, summary)
    code, _, error = invoke("train.py", *RUN, f"run_dir={folder}")
    assert code == 2
    assert error.startswith(f"error: teacher: run_dir={folder}/teacher: was trained on other images; restore them")


@pytest.mark.integration
def test_a_teacher_cannot_be_changed_afterwards(whole, invoke):
    code, _, error = invoke("train.py", f"resume={whole[0]}", "++teacher.lr=1e-3", "force=true")
    assert code == 2
    assert error.endswith("teacher.lr=0.006 would become 0.001; omit that, or start a new run\n")


@pytest.mark.integration
def test_a_run_without_a_checkpoint_keeps_its_teacher(whole, invoke, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    shutil.rmtree(folder / "checkpoints")
    (folder / "summary.json").unlink()
    hint = f"only its teacher has a checkpoint; run the same command again with run_dir={folder} resume=auto"
    for again in ([*RUN, f"run_dir={folder}"], [f"resume={folder}"]):
        code, _, error = invoke("train.py", *again)
        assert code == 2
        assert hint in error
    code, said, error = invoke("train.py", *RUN, f"run_dir={folder}", "resume=auto")
    assert code == 0, error
    assert "trained first" not in said
    assert_same(contents(folder)["state_dict"], contents(whole[0])["state_dict"], **EXACT)


def test_the_teacher_s_configuration(tmp_path):
    config = train_config(*RUN, "schedule.max_steps=null", "schedule.epochs=10", "schedule.warmup_steps=null",
                          "schedule.warmup_epochs=1")  # fmt: skip
    own = teacher_config(config, tmp_path)
    assert (own.schedule.epochs, own.schedule.warmup_epochs, own.schedule.max_steps) == (5.0, 0.5, None)
    assert (own.model.width, own.predictor.width, own.optimizer.lr) == (12, 12, 6e-3)
    assert (own.objective.target, own.objective.target_depths, own.teacher) == ("pixels", None, None)
    same = ("data", "masking", "hardware", "seed")
    assert all(getattr(own, name) == getattr(config, name) for name in same)


def test_a_timm_encoder_gets_a_teacher_with_its_patches(tmp_path):
    model = TimmVit(name="vit_tiny_patch16_224", pretrained=False, patch_size=8, width=None, depth=None, heads=None)
    own = teacher_config(train_config(*RUN).model_copy(update={"model": model}), tmp_path).model
    assert (own.patch_size, own.width, own.depth, own.heads) == (8, 12, 2, 3)


def test_a_module_of_its_own_has_no_teacher_to_train():
    config = ijepa.compose_config(*RUN)
    data = ijepa.build_datamodule(config)
    with pytest.raises(UserError, match=r"^teacher: only train\.py trains one; try teacher=null with objective\.teach"):
        ijepa.build_module(config, data)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_equal_one(whole, tmp_path, strategy):
    losses: list[list[float]] = []
    devices = (f"hardware.strategy={strategy}", "hardware.devices=2")
    result = command("train.py", *RUN, *devices, f"run_dir={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    for one, two in ((folder, RunFolder(folder).teacher_run) for folder in (whole[0], tmp_path / "run")):
        losses.append([float(row["train/loss"]) for folder in (one, two) for row in rows(folder) if row["train/loss"]])
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert result.stdout.count("trained first") == 1
