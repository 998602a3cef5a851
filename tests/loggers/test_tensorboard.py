"""What TensorBoard is told."""

import pytest
from helpers import LOGGED, rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_tensorboard_is_told_the_same(invoke, tmp_path):
    folder = tmp_path / "run"
    changes = [item for item in LOGGED if not item.startswith("logger")]
    length = ("schedule=constant", "schedule.warmup_steps=1")
    code, _, error = invoke("train.py", *changes, *length, "logger=tensorboard", f"run_dir={folder}")
    assert code == 0, error
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    tags = events.Tags()
    assert {"train/loss", "lr", "health/rankme", "val/knn20"} <= set(tags["scalars"])
    table = {row["step"]: row for row in rows(folder)}
    for event in events.Scalars("health/rankme"):
        assert event.value == pytest.approx(float(table[str(event.step)]["health/rankme"]), rel=1e-6)
    assert {"config/text_summary", "health/verdict/text_summary"} <= set(tags["tensors"])
    assert {"pictures/features", "pictures/final/masks"} <= set(tags["images"])
    code, _, error = invoke("train.py", f"resume={folder / 'checkpoints' / 'last.ckpt'}", "schedule.max_steps=5")
    assert code == 0, error
    steps = [event.step for event in EventAccumulator(str(folder / "tensorboard")).Reload().Scalars("train/loss")]
    assert steps == sorted(set(steps)) == [1, 2, 3, 4, 5]
