"""Numbers that are too large or too small are refused before anything starts."""

import pytest
from helpers import SMALL, composed, train_config

from ijepa.config import EvaluateConfig, PredictConfig, StatisticsConfig, TrainConfig
from ijepa.config.checks import check, parse
from ijepa.config.fields import LARGEST, MAX_COUNT
from ijepa.run import build
from ijepa.util.errors import UserError

LOWER, UPPER = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}


def unbounded(node, path):
    """The paths of numbers without a lower or an upper bound."""
    if isinstance(node, list):
        return [found for index, item in enumerate(node) for found in unbounded(item, f"{path}.{index}")]
    if not isinstance(node, dict):
        return []
    lacks = node.get("type") in ("number", "integer") and not (LOWER & node.keys() and UPPER & node.keys())
    return [path] * lacks + [found for key, item in node.items() for found in unbounded(item, f"{path}.{key}")]


@pytest.mark.parametrize("schema", [TrainConfig, EvaluateConfig, PredictConfig, StatisticsConfig])
def test_every_number_has_bounds(schema):
    assert unbounded(schema.model_json_schema(), schema.__name__) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.lr=1e38"], r"^optimizer.lr=1e\+38: should be less than or equal to 1e\+09$"),
        (["optimizer.lr=1e300", "optimizer.name=muon"], r"^optimizer.lr=1e\+300: "),
        (["optimizer.eps=1e-300"], r"^optimizer.eps=1e-300: should be greater than"),
        (["optimizer.clip_grad_norm=1e300"], r"^optimizer.clip_grad_norm=1e\+300: "),
        (["objective.distance_weight=1e300"], r"^objective.distance_weight=1e\+300: "),
        (["objective.variance_weight=1e40"], r"^objective.variance_weight=1e\+40: "),
        (["schedule.weight_decay.end=1e39"], r"^schedule.weight_decay.end=1e\+39: "),
        (["schedule.learning_rate.start=1e39"], r"^schedule.learning_rate.start=1e\+39: "),
        (["schedule.max_steps=1000000000000000000000"], r"^schedule.max_steps=10+: should be less than or equal"),
        (["schedule.epochs=1e300", "schedule.max_steps=null"], r"^schedule.epochs=1e\+300: "),
        (["schedule.warmup_epochs=1e300"], r"^schedule.warmup_epochs=1e\+300: "),
        (["schedule.warmup_steps=1000000000000000000000"], r"^schedule.warmup_steps=10+: "),
        (["data.crop_aspect=[1e-300,1e300]"], r"^data.crop_aspect=1e\+300: should be less than or equal to 1000$"),
        (["data.crop_aspect=[1e-300,1]"], r"^data.crop_aspect=\[1e-300,1.0\]: needs 0.001 <= low <= high <= 1000$"),
        (["masking.target_aspect=[1e-6,1]"], r"^masking.target_aspect=.*: needs 0.001 <= low <= high <= 1000$"),
        (["data.mean=[1e300]", "data.std=[1e-300]"], r"^data.mean=1e\+300: "),
        (
            ["data.mean=[1]", "data.std=[1e-20]"],
            r"^data.mean=\[1.0\]: more than 1e\+12 times data.std=\[1e-20\] from 0",
        ),
        (["data.std=[1e-45]"], r"^data.std=1e-45: should be greater than or equal to 1e-30$"),
        (["data.workers=1000000000000000000000"], r"^data.workers=10+: should be less than or equal to 1024$"),
        (["callbacks.evaluate_every_epochs=1e308"], r"^callbacks.evaluate_every_epochs=1e\+308: "),
        (["model.mlp_ratio=1e308"], r"^model.mlp_ratio=1e\+308: "),
        (["task.knn.temperature=1e-300"], r"^task.knn.temperature=1e-300: "),
        (["task=linear", "task.linear.lr=[1e300]"], r"^task.linear.lr=1e\+300: "),
        (["task=linear", "task.linear.weight_decay=[1e300]"], r"^task.linear.weight_decay=1e\+300: "),
        (["task=lowshot", "task.lowshot.l2=[1e300]"], r"^task.lowshot.l2=1e\+300: "),
        (["task=finetune", "task.finetune.lr=1e300"], r"^task.finetune.lr=1e\+300: "),
    ],
)
def test_extreme_numbers(overrides, message):
    with pytest.raises(UserError, match=message):
        check(train_config("data=digits", "objective=l2", *overrides))


def test_extreme_numbers_of_an_evaluation():
    values = composed("checkpoint=X", "data=digits", "data.workers=1000000000", "task=knn", name="evaluate")
    with pytest.raises(UserError, match=r"^data.workers=1000000000: should be less than or equal to 1024$"):
        parse(EvaluateConfig, {name: values[name] for name in EvaluateConfig.model_fields})


@pytest.mark.integration
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_numbers_at_their_bounds_train(tmp_path, name):
    """Without a traceback: the steps are skipped where they are not finite."""
    extreme = [f"optimizer.lr={LARGEST}", "optimizer.lr_per_256=true", f"optimizer.name={name}", "optimizer.eps=1e30",
               "optimizer.betas=[0.9999999999999999,0.9999999999999999]", f"schedule.weight_decay.start={LARGEST}",
               f"schedule.learning_rate.start={LARGEST}", f"objective.distance_weight={LARGEST}",
               "data.crop_aspect=[0.001,1000]", "optimizer.clip_grad_norm=1e-30",
               "callbacks.max_skipped_steps=null"]  # fmt: skip
    run = build.run(train_config(*SMALL, f"schedule.max_steps={MAX_COUNT}", *extreme), tmp_path)
    run.trainer.fit_loop.epoch_loop.max_steps = 3
    run.trainer.fit(run.module, run.data)
    assert run.trainer.global_step == 3
