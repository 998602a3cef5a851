"""Looks along a run: what is looked at, how often, what follows; and runs that do what they are said to do."""

import json
import math

import pytest
import torch
from helpers import EXACT, SMALL, TINY, assert_same, fit, rows, train_config, weights

from ijepa.run import build

pytestmark = pytest.mark.integration


def test_a_run_tells_how_it_is(tmp_path):
    folder = tmp_path / "run"
    fit(folder, *SMALL, "callbacks.health_every_steps=2", "callbacks.health_images=32")
    looked = [row for row in rows(folder) if row["health/rankme"]]
    assert [row["step"] for row in looked] == ["0", "2", "4"]
    for row in looked:
        for name in ("std", "std_across", "share", "norm", "rankme", "alpha_req", "lidar", "knn", "linear", "cosine",
                     "predictions_std", "predictions_std_across", "predictions_norm"):  # fmt: skip
            assert math.isfinite(float(row[f"health/{name}"])), name
        assert row["health/verdict"]
        assert row["lr"]
        assert row["momentum"]
    assert looked[0]["health/gradient_norm"] == ""
    assert float(looked[-1]["health/gradient_norm"]) > 0
    assert float(looked[0]["health/encoder_distance"]) == 0
    assert float(looked[-1]["health/encoder_distance"]) > 0
    told = json.loads((folder / "health.json").read_text())
    assert [verdict["step"] for verdict in told["verdicts"]] == [0, 2, 4]


@pytest.mark.parametrize(
    "override",
    ["objective=pixels", "objective=latents_and_pixels", "objective.target=input", "objective=variance_covariance",
     "masking=random", "masking.surplus=keep", "hardware.precision=bf16-true", "hardware.precision=bf16-mixed",
     "hardware.checkpointing=true", "hardware.accumulation=2", "data.val_fraction=0", "data.image_size=[32,48]"],
)  # fmt: skip
def test_every_kind_of_run_is_looked_at(tmp_path, override):
    look = ("callbacks.health_every_steps=1", "callbacks.health_images=16", "schedule.max_steps=1")
    run = fit(tmp_path, *SMALL, *look, override)
    first, last = run.health.checks
    assert (first["step"], last["step"]) == (0, 1)
    assert all(math.isfinite(value) for value in last.values())
    assert run.health.verdicts[-1].verdict == "warming up"


def test_a_run_on_a_single_image(tmp_path):
    from PIL import Image

    Image.new("L", (40, 40), 99).save(tmp_path / "only.png")
    run = fit(
        tmp_path / "run", *SMALL, "data=folder", f"data.root={tmp_path}", "data.val_fraction=0", "data.channels=1",
        "data.image_size=32", "data.mean=[0.5]", "data.std=[0.5]", "model.patch_size=4", "data.batch_size=2",
        "data.workers=0", "callbacks.health_every_steps=1", "callbacks.health_images=16",
    )  # fmt: skip
    assert run.health.verdicts[-1].verdict != "diverging"


def test_looking_changes_nothing(tmp_path):
    often = fit(tmp_path / "a", *SMALL, "callbacks.health_every_steps=1", "callbacks.health_images=16")
    never = fit(tmp_path / "b", *SMALL, "callbacks.health_every_steps=null")
    assert_same(weights(often), weights(never), **EXACT)


def test_a_resumed_run_goes_on_with_what_it_knew(tmp_path):
    changes = [*SMALL, "callbacks.health_every_steps=1", "callbacks.health_images=16",
               "callbacks.checkpoint_every_steps=1"]  # fmt: skip
    whole = fit(tmp_path / "a", *changes)
    fit(tmp_path / "b", *changes, stop=2)
    rest = fit(tmp_path / "b", *changes, last=tmp_path / "b" / "checkpoints" / "last.ckpt")
    one, other = (
        [[row[name] for name in row if name.startswith("health/")] for row in rows(tmp_path / run)] for run in "ab"
    )
    assert one == other
    assert rest.trainer.callbacks is not None
    told = [json.loads((tmp_path / run / "health.json").read_text())["verdicts"] for run in "ab"]
    assert told[0] == told[1]
    assert whole.checkpoint.best == rest.checkpoint.best


def test_the_checkpoints_to_keep(tmp_path):
    run = fit(
        tmp_path, *SMALL, "callbacks.health_every_steps=1", "callbacks.health_images=32",
        "callbacks.checkpoint_every_steps=1", "callbacks.checkpoint_keep=1", "optimizer.lr=0.003",
    )  # fmt: skip
    table = {int(row["step"]): row for row in rows(tmp_path)}
    assert set(run.checkpoint.best) == {"rankme", "lidar", "knn"}
    for name, (value, step) in run.checkpoint.best.items():
        column = {at: float(row[f"health/{name}"]) for at, row in table.items() if at}
        assert value == pytest.approx(max(column.values()), rel=1e-6)
        assert column[step] == pytest.approx(value, rel=1e-6)
        saved = torch.load(tmp_path / "checkpoints" / f"best-{name}.ckpt", weights_only=True)
        assert saved["global_step"] == step


def test_best_checkpoints_of_a_way_that_is_not_gone_any_more(tmp_path):
    changes = [*SMALL, "callbacks.health_every_steps=1", "callbacks.health_images=16",
               "callbacks.checkpoint_every_steps=1", "callbacks.checkpoint_keep=10"]  # fmt: skip
    folder = tmp_path / "checkpoints"
    run = fit(tmp_path, *changes)
    run.checkpoint.load_state_dict(
        torch.load(folder / "step-000002.ckpt", weights_only=True)["callbacks"]["Checkpoint"]
    )
    run.checkpoint.rewind(folder / "step-000002.ckpt", 2)
    for file in folder.glob("best-*.ckpt"):
        name = file.stem.removeprefix("best-")
        assert torch.load(file, weights_only=True)["global_step"] == run.checkpoint.best[name][1] <= 2


RUN = ("data=digits", "hardware=cpu", "hardware.precision=32-true", "data.workers=0", "callbacks.health_every_steps=20",
       "callbacks.evaluate_every_epochs=null", "callbacks.pictures=null")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "steps", "expected"),
    [
        (("model.depth=2",), 100, "context unused"),  # the regularisers work, the prediction does not
        (("objective=l2",), 40, "warming up"),  # learns slowly, and is not accused
        (("objective=l2", "schedule.momentum.start=0", "schedule.momentum.end=0"), 60, "collapsing (complete)"),
        (("objective=l2", "optimizer.lr=0.03"), 60, "collapsing (complete)"),
    ],
    ids=["default", "l2", "momentum 0", "learning rate"],
)
def test_runs_that_learn_and_runs_that_fail(tmp_path, changes, steps, expected):
    """As docs/health.md tells of them; schedules are those of 300 steps, of which these are the first."""
    run = build.run(train_config(*RUN, "schedule.max_steps=300", *changes), tmp_path)
    run.trainer.fit_loop.epoch_loop.max_steps = steps
    run.trainer.fit(run.module, run.data)
    told = [verdict.title for verdict in run.health.verdicts]
    assert told[-1] == expected
    assert set(told) <= {"warming up", expected}


def test_one_label_set_that_cannot_be_judged_does_not_hide_another(tmp_path):
    run = fit(tmp_path, *SMALL, "callbacks.health_every_steps=1", "callbacks.health_images=16", "schedule.max_steps=1")
    run.health.checks[-1] |= {"a/knn": 0.5, "b/knn": math.nan, "knn": math.nan}
    assert run.health.selection_scores(1)["knn"] == 0.5
    run.health.verdicts[-1] = run.health.verdicts[-1]._replace(verdict="collapsing")
    assert run.health.selection_scores(1) == {}  # what is not well is not kept


@pytest.mark.slow
@pytest.mark.parametrize("further", [(), ("callbacks.health_every_steps=null",)], ids=["looked at", "not any more"])
def test_going_back_drops_looks(tmp_path, invoke, further):
    """Also where config.yaml is older than the keys of callbacks."""
    folder = tmp_path / "run"
    options = ("data=digits", *TINY, "callbacks.health_every_steps=1", "callbacks.health_images=16",
               "callbacks.checkpoint_every_steps=1", "schedule=constant", "schedule.warmup_steps=0")  # fmt: skip
    assert invoke("train.py", *options, f"run_dir={folder}")[0] == 0
    told = json.loads((folder / "health.json").read_text())["verdicts"]
    config = folder / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    missing = ("# Version", "health_every_steps", "health_images", "pictures:")
    config.write_text("".join(line for line in lines if not any(key in line for key in missing)))
    back = (f"resume={folder / 'checkpoints' / 'step-000002.ckpt'}", "schedule.max_steps=2")
    code, _, error = invoke("train.py", *back, *further)
    assert code == 0, error
    if further:
        assert not (folder / "health.json").exists()
    else:
        assert json.loads((folder / "health.json").read_text())["verdicts"] == told[:3]


@pytest.mark.slow
def test_a_run_that_ends_in_no_numbers_says_so(invoke, tmp_path):
    folder = tmp_path / "run"
    looks = ("callbacks.health_every_steps=1", "callbacks.pictures=1", "callbacks.health_images=16")
    code, out, error = invoke("train.py", "data=digits", *TINY, *looks, "optimizer.lr=1e9", f"run_dir={folder}")
    assert code == 2
    assert "health: diverging" in out
    assert error.splitlines()[-1].startswith("error: target encoder: features of training images are not finite")
    assert json.loads((folder / "health.json").read_text())["verdicts"][-1]["verdict"] == "diverging"
    assert (folder / "checkpoints" / "last.ckpt").exists()
    assert not (folder / "checkpoints" / "best-rankme.ckpt").exists()
