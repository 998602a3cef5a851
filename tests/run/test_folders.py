"""A run's folder belongs to one run, and is written to as long as there is room."""

import multiprocessing

import pytest
import torch
from helpers import TINY

from ijepa.run import folders
from ijepa.util.errors import UserError

pytestmark = pytest.mark.slow


def test_two_processes_do_not_run_in_one_folder(finished, invoke, tmp_path, monkeypatch):
    new = tmp_path / "new"
    new.mkdir()
    with folders.locked(finished[0]), folders.locked(new):
        for arguments in ([f"resume={finished[0]}"], ["data=digits", *TINY, f"run_dir={new}"]):
            code, _, error = invoke("train.py", *arguments)
            assert code == 2
            assert "another process is using it" in error
    assert list(new.iterdir()) == []
    with pytest.raises(UserError, match="is using it"), folders.locked(new), folders.locked(new):
        pass
    with folders.locked(new):
        monkeypatch.setenv("LOCAL_RANK", "1")  # another process of the same run
        with folders.locked(new):
            pass


def test_a_killed_run_s_folder_is_free_at_once(tmp_path):
    """Though its loaders' workers live on for seconds."""
    context = multiprocessing.get_context("fork")
    started, ended = context.Event(), context.Event()
    with folders.locked(tmp_path):
        worker = context.Process(target=lambda: started.set() or ended.wait(60))
        worker.start()
        assert started.wait(60)
    with folders.locked(tmp_path):
        ended.set()
    worker.join()


@pytest.mark.parametrize("variables", [{"TORCHELASTIC_RUN_ID": "1"}, {"SLURM_NTASKS": "2"}])
def test_several_processes_need_to_be_told_their_folder(invoke, tmp_path, monkeypatch, variables):
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, _, error = invoke("train.py", "data=digits", *TINY)
    assert code == 2
    assert error.startswith("error: run_dir=null: with torchrun, Slurm or several nodes all processes need")
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_is_one_line(invoke, tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    folder = tmp_path / "run"
    code, _, error = invoke("train.py", "data=digits", *TINY, f"run_dir={folder}")
    assert code == 2
    file = folder / "checkpoints" / "step-000003.ckpt"
    assert error == f"error: {file}: cannot be written (No space left on device?); files written before are complete\n"
    assert not list((folder / "checkpoints").iterdir())


def test_a_full_disk_in_a_sweep(invoke, tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    sweep = [f"run_dir={tmp_path / 'sweep'}", f"hydra.sweep.dir={tmp_path / 'sweep'}", "seed=0,1"]
    code, _, error = invoke("train.py", "-m", "data=digits", *TINY, *sweep)
    assert code == 2
    assert "Traceback" not in error
    assert error.splitlines()[-1] == "error: 2 of 2 jobs failed"


@pytest.mark.parametrize("part", ["metrics.csv", "checkpoints/step-000400.ckpt"])
def test_a_run_does_not_begin_among_parts_of_another(invoke, tmp_path, part):
    path = tmp_path / "run" / part
    path.parent.mkdir(parents=True)
    path.write_text("step\n1\n")
    code, _, error = invoke("train.py", "data=digits", *TINY, f"run_dir={tmp_path / 'run'}")
    assert code == 2
    name = part.partition("/")[0]
    assert error == f"error: run_dir={tmp_path / 'run'}: contains part of a run, {name}; give another run_dir\n"
    assert [file for file in (tmp_path / "run").rglob("*") if file.is_file()] == [path]


def test_an_empty_folder_of_the_user_s_stays(invoke, tmp_path):
    assert invoke("train.py", "data=digits", *TINY, f"run_dir={tmp_path}", "schedule.warmup_steps=9")[0] == 2
    assert tmp_path.is_dir()
