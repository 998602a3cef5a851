"""Devices, and processes that would train alone."""

import pytest
import torch
from helpers import TINY, train_config

from ijepa.distributed import devices
from ijepa.evaluation import tasks
from ijepa.run import build, runs
from ijepa.training.module import Pretraining
from ijepa.util.errors import UserError


def test_processes_of_torchrun_that_would_train_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"^hardware.devices=1: torchrun has started 2"):
        build.run(train_config("data=digits"), tmp_path)


@pytest.mark.parametrize(
    ("allocated", "options", "told"),
    [
        ({"STEP_NUM_TASKS": "2"}, [], "hardware.devices=1: srun has started 2 tasks; try hardware=slurm"),
        (
            {"NTASKS": "2"},
            ["hardware.devices=2", "hardware.strategy=ddp"],
            "hardware.devices=2: --ntasks does not fix",
        ),
    ],
)
def test_tasks_of_slurm_that_would_train_alone(monkeypatch, tmp_path, allocated, options, told):
    for name, value in {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "1", **allocated}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(UserError, match=f"^{told}"):
        build.run(train_config("data=digits", "hardware=cpu", *options), tmp_path)


@pytest.mark.parametrize(
    "allocated",
    [{"NTASKS": "8"}, {"NTASKS": "4", "NTASKS_PER_NODE": "4"}, {"NTASKS": "4", "STEP_NUM_TASKS": "1"}],
    ids=["cores asked for as tasks", "one process of a job", "one step of many"],
)
def test_one_process_is_no_concern_of_slurm_s(monkeypatch, tmp_path, allocated):
    for name, value in {"JOB_ID": "7", "JOB_NAME": "train", **allocated}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    run = build.run(train_config("data=digits", "hardware=cpu"), tmp_path)
    assert run.trainer.world_size == 1


def test_hardware_that_is_not_there():
    import torch

    config = train_config("hardware=gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"^hardware.accelerator=gpu: .* try hardware=cpu"):
            devices.device(config.hardware)
    with pytest.raises(UserError, match=r"^hardware.devices=2: .*hardware.strategy"):
        devices.device(train_config("hardware=cpu", "hardware.devices=2").hardware)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_ddp_has_a_static_graph_only_without_accumulation(accumulation):
    config = train_config("hardware=ddp", "hardware.accelerator=cpu", f"hardware.accumulation={accumulation}")
    options = devices.strategy(config.hardware)._ddp_kwargs
    assert options == {"gradient_as_bucket_view": True, "static_graph": accumulation == 1}


@pytest.mark.integration
@pytest.mark.parametrize("enabled", [False, True])
def test_tensorfloat_32_is_for_training_only(enabled, tmp_path, monkeypatch):
    """Not for evaluations along the run or at its end, which are as evaluate.py's; nor after it."""
    found, step, evaluate = {"training": [], "evaluation": []}, Pretraining.training_step, tasks.evaluate

    def noted(kind, function):
        def call(*args):
            found[kind].append(torch.backends.cuda.matmul.allow_tf32)
            return function(*args)

        return call

    monkeypatch.setattr(Pretraining, "training_step", noted("training", step))
    monkeypatch.setattr(tasks, "evaluate", noted("evaluation", evaluate))
    values = [f"hardware.tf32={enabled}", "schedule.max_steps=2", "data.batch_size=1000"]
    config = train_config(*TINY, "data=digits", *values, "callbacks.evaluate_every_epochs=1")
    runs.execute(build.run(config, tmp_path))
    assert found["training"] == [enabled] * 2
    assert found["evaluation"]
    assert not any(found["evaluation"])
    assert not torch.backends.cuda.matmul.allow_tf32
