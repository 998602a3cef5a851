"""The lines of a run's progress."""

import time
from types import SimpleNamespace

import pytest
from torch.utils.data import Dataset

from ijepa.callbacks import progress
from ijepa.callbacks.progress import ProgressReport, remedy
from ijepa.data.loader import Loader, batched


class Slow(Dataset):
    """Numbers that take a while to read."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return index


def lines(loader, work, monkeypatch, capsys):
    """What a run prints whose steps take ``work`` seconds."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    recorder = SimpleNamespace(images=8, epoch_images=16, loss=0.5, images_per_second=20.0)
    trainer = SimpleNamespace(global_step=0, is_global_zero=True, train_dataloader=loader, num_devices=1)
    report = ProgressReport(recorder, 4, every_seconds=0)
    report.on_train_start(trainer, None)
    for step in range(1, 4):
        loader.waited = 5.0 * step
        now[0], trainer.global_step = 1000.0 + step * (work + 5), step
        report.on_train_batch_end(trainer, None, None, None, step)
    return capsys.readouterr().out.splitlines()


def test_waiting_is_shown_and_remedied_once(monkeypatch, capsys):
    loader = Loader(Slow(0), batched(4, 1), workers=1)
    monkeypatch.setattr(progress, "worker_count", lambda *_: 6)
    said = lines(loader, 15, monkeypatch, capsys)
    assert said[0] == "step 1/4  epoch 0.5  loss 0.5000  20 images/s  1:00 left  25 % waiting for images"
    assert said[1:] == [
        "step 2/4  epoch 0.5  loss 0.5000  20 images/s  0:40 left  25 % waiting for images",
        "note: 25 % waiting for images; try data.workers=6, instead of 1",
        "step 3/4  epoch 0.5  loss 0.5000  20 images/s  0:20 left  25 % waiting for images",
    ]
    assert not any("note" in line for line in lines(loader, 95, monkeypatch, capsys))


def test_remedies(monkeypatch):
    monkeypatch.setattr(progress, "worker_count", lambda requested, devices: 8 // devices)
    assert remedy(0, 2) == "try data.workers=4, instead of 0"
    assert remedy(4, 2).startswith("try images that are stored smaller")


@pytest.mark.integration
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_measures_how_long_it_is_waited_for(workers):
    """Not the first batch, nor what its user does in between."""
    loader = Loader(Slow(0.2), batched(4, 1), workers)
    begun = time.perf_counter()
    received = []
    for batch in loader:
        received.append((batch.item(), time.perf_counter() - begun, loader.waited))
        time.sleep(0.3)
    assert [number for number, _, _ in received] == [0, 1, 2, 3]
    assert received[0][2] == 0
    waited = loader.waited
    assert (0.55 < waited < 0.6 + 1) if workers == 0 else (waited < time.perf_counter() - begun - 4 * 0.3)
