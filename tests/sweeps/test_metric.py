"""What a sweep compares runs by."""

import csv

import pytest
from helpers import DIGITS

from ijepa.cli.metrics import help_section
from ijepa.evaluation.specs import KNN, lookup
from ijepa.health import kinds
from ijepa.sweeps import metric
from ijepa.util.errors import UserError

MEASURES = [spec.name for spec in kinds.measures(decoder=False)]


@pytest.mark.parametrize("sweeper", ["grid", "optuna"])
def test_a_metric_that_no_run_will_have_is_refused_before_training(invoke, tmp_path, sweeper):
    code, said, error = invoke("train.py", "-m", *DIGITS, f"hydra/sweeper={sweeper}", "seed=0,1", "metric=val/knn6",
                               f"run_dir={tmp_path}", *["hydra.sweeper.n_trials=2"][: sweeper == "optuna"])  # fmt: skip
    assert code == 2
    assert "metric=val/knn6: a run will not have it, did you mean knn5?; " in error
    assert "or a result: knn5" in error
    assert "Traceback" not in error
    assert "step" not in said.replace("steps", "")
    assert not list(tmp_path.glob("*/metrics.csv"))


def test_every_column_with_a_better_direction_can_be_a_metric(invoke, tmp_path):
    code, _, error = invoke("train.py", *DIGITS, "callbacks.health_every_steps=1", f"run_dir={tmp_path / 'run'}")
    assert code == 0, error
    with (tmp_path / "run" / "metrics.csv").open() as file:
        columns = [name for name in next(csv.reader(file)) if name not in ("step", "health/verdict")]
    assert {f"health/{name}" for name in MEASURES} <= set(columns)
    for name in columns:
        assert "_" not in lookup(name).title, "has no spec"
        if lookup(name).better:
            metric.check(name, {"knn5": KNN.instance(k=5)}, MEASURES)
    for name in ("health/rankmee", "health/", "knn6"):
        with pytest.raises(UserError, match=f"^metric={name}: a run will not have it"):
            metric.check(name, {"knn5": KNN.instance(k=5)}, MEASURES)


@pytest.mark.parametrize("name", ["lr", "momentum", "epoch", "health/std", "health/cosine"])
def test_a_metric_without_a_better_direction_is_refused(name):
    """It would be maximised; unless the sweeper is given a direction."""
    expected = f"^metric={name}: has no better direction; try train/loss, health/rankme or a result: knn5$"
    with pytest.raises(UserError, match=expected):
        metric.check(name, {"knn5": KNN.instance(k=5)}, MEASURES)
    metric.check(name, {"knn5": KNN.instance(k=5)}, MEASURES, needs_direction=False)


def test_a_decoders_run_has_measures_of_its_own():
    decoder = [spec.name for spec in kinds.measures(decoder=True)]
    metric.check("health/gain_over_another", {}, decoder)
    expected = "^metric=health/rankme: a run will not have it.*; try train/loss, health/gain_over_another$"
    with pytest.raises(UserError, match=expected):
        metric.check("health/rankme", {}, decoder)
    for name in ("health/labels/knn", "health/gain_over_another"):
        metric.check(name, {}, MEASURES if name.endswith("knn") else decoder)
        with pytest.raises(UserError, match="a run will not have it"):
            metric.check(name, {}, decoder if name.endswith("knn") else MEASURES)


@pytest.mark.parametrize(("directions", "code"), [([], 2), (["hydra.sweeper.direction=maximize"], 0)])
def test_a_search_for_a_metric_without_a_better_direction(invoke, tmp_path, directions, code):
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "optimizer.lr=1e-3,1e-4", *directions]
    found, _, error = invoke("train.py", "-m", *DIGITS, *search, "metric=lr", f"run_dir={tmp_path}")
    assert found == code, error
    assert ("metric=lr: has no better direction; try " in error) == (code == 2)


def test_help_lists_no_metric_without_a_better_direction():
    names = {line.split()[0] for line in help_section(training_run=True)[2:]}
    assert {"loss", "images_per_second", "health/rankme", "knnK"} <= names
    assert not {"lr", "momentum", "health/std", "health/cosine"} & names


def test_a_metric_of_what_is_switched_off(invoke, tmp_path):
    code, _, error = invoke("train.py", *DIGITS, "metric=health/rankme", f"run_dir={tmp_path}",
                            "callbacks.health_every_steps=null")  # fmt: skip
    assert code == 2
    assert error == ("error: metric=health/rankme: is not measured with callbacks.health_every_steps=null\n")


def test_directions():
    assert (
        metric.direction(None) == metric.direction("count/logistic") == metric.direction("health/rankme") == "maximize"
    )
    assert metric.direction("distance/knn20") == metric.direction("distance") == "maximize"
    assert {metric.direction(name) for name in ("health/alpha_req", "flops", "val/depth_rmse", "train/new")} == {
        "minimize"
    }
    assert {metric.direction(name) for name in ("train/loss", "loss", "depth_rmse", "train/distance")} == {"minimize"}
