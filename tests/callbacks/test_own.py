"""Callbacks of the user's own: found by name, told what they ask for, their state in the checkpoint."""

import sys

import pytest
import torch
from helpers import TINY

QUICK = ("callbacks.evaluate_every_epochs=null",)
OWN = """
import lightning as L
import torch


class Mean(L.Callback):
    '''A running mean of the loss, for which every step counts.'''

    def __init__(self, folder, config: dict, decay: float = 0.5) -> None:
        self.folder, self.decay, self.value, self.steps = folder, decay, 0.0, 0

    @property
    def state_key(self):
        return f"Mean{self.decay}"

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.value = self.decay * self.value + (1 - self.decay) * float(outputs["loss"])
        self.steps += 1

    def on_train_end(self, trainer, module):
        (self.folder / "mean.txt").write_text(f"{self.steps} {self.value!r}")

    def state_dict(self):
        return {"value": self.value, "steps": self.steps}

    def load_state_dict(self, state):
        self.value, self.steps = state["value"], state["steps"]


class NoCallback:
    def __init__(self, decay: float) -> None:
        pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a module and options of the user's own."""
    (tmp_path / "own_callbacks.py").write_text(OWN)
    options = tmp_path / "own_conf" / "callback"
    options.mkdir(parents=True)
    (options / "mean.yaml").write_text("# @package callback.mean\n_target_: own_callbacks.Mean\ndecay: 0.9\n")
    (options / "quick.yaml").write_text("_target_: own_callbacks.Mean\ndecay: 0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_callbacks", None)


def test_state_outlives_a_stop(own, invoke):
    arguments = ["--config-dir", own / "own_conf", "callback=mean", *TINY, *QUICK, "data=digits", "schedule=constant"]
    whole, cut = own / "whole", own / "cut"
    for folder, steps in ((whole, 5), (cut, 3)):
        code, _, err = invoke("train.py", *arguments, f"run_dir={folder}", f"schedule.max_steps={steps}")
        assert code == 0, err
    code, _, err = invoke("train.py", f"resume={cut}", "schedule.max_steps=5", "trust=own_callbacks")
    assert code == 0, err
    assert (whole / "mean.txt").read_text().startswith("5 0.")
    assert (whole / "mean.txt").read_text() == (cut / "mean.txt").read_text()
    states = [torch.load(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (whole, cut)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_several_and_another_when_resumed(own, invoke):
    run = f"run_dir={own / 'run'}"
    both = ["--config-dir", own / "own_conf", "callback=[mean,quick]"]
    code, _, err = invoke("train.py", *both, *TINY, *QUICK, "data=digits", "schedule=constant", run)
    assert code == 0, err
    config = (own / "run" / "config.yaml").read_text()
    assert "callback:\n  mean:\n    _target_: own_callbacks.Mean\n    decay: 0.9\n  Mean:\n" in config
    code, _, err = invoke("train.py", *both[:2], f"resume={own / 'run'}", "schedule.max_steps=4", "callback=quick")
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["callback=mean", "callback.mean.decay=x"], "callback.mean.decay=x: should be a valid number"),
        (["callback=quick", "+callback.dekay=1"], "callback.Mean.dekay=1: no such key; own_callbacks.Mean takes decay"),
        (["callback=mean", "callback.mean._target_=own_callbacks.NoCallback"],
         "callback.mean._target_=own_callbacks.NoCallback: lacks "),
        (["callback=[mean,quick]", "callback.mean.decay=0.1"],
         "callback.Mean._target_=own_callbacks.Mean: another callback has its state_key"),
        (["callback=nope"], "callback=nope: no such option; try mean, quick"),
        (["callback=3"], "callback=3: no such option; try mean, quick"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(own, invoke, arguments, line):
    run = f"run_dir={own / 'run'}"
    code, _, err = invoke("train.py", "--config-dir", own / "own_conf", "data=digits", *TINY, *QUICK, run, *arguments)
    assert code == 2
    assert err.startswith(f"error: {line}")
    assert err.count("\n") == 1
