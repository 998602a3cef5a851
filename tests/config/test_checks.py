"""What is refused, and with which line."""

import pytest
from helpers import train_config

from ijepa.cli.explain import explain
from ijepa.config.checks import check
from ijepa.run import build
from ijepa.util.errors import UserError


@pytest.mark.parametrize(
    ("override", "starts", "mentions"),
    [
        ("optimizer.lrr=1", "optimizer.lrr=1: ", "optimizer.lr?"),
        ("modle=vit_tiny", "modle=vit_tiny: ", "model?"),
        ("model=vit_tinny", "model=vit_tinny: ", "vit_tiny?"),
        ("+foo=1", "foo=1: ", "run_dir"),
        ("+model.foo=1", "model.foo=1: ", "model.depth"),
        ("optimizer.lr=abc", "optimizer.lr=abc: ", "number"),
        ("optimizer.lr=-1", "optimizer.lr=-1: ", "greater than 0"),
        ("model.depth=2.5", "model.depth=2.5: ", "integer"),
        ("data.image_size=[32,32,32]", "data.image_size=[32,32,32]: ", "2 items"),
        ("hardware.precision=fp8", "hardware.precision=fp8: ", "bf16-mixed"),
        ("masking.name=checkers", "masking.name=checkers: ", "rasterized"),
        ("model.patch_size=5", "model.patch_size=5: ", "try 4"),
        ("data.image_size=[30,32]", "model.patch_size=4: ", "[30,32]"),
        ("model.heads=5", "model.width=96: ", "try 100"),
        ("predictor.width=50", "predictor.width=50: ", "try 48"),
        ("data.mean=[0.1,0.2]", "data.mean=[0.1,0.2]: ", "data.channels=1"),
        ("data.crop_scale=[0.9,0.3]", "data.crop_scale=[0.9,0.3]: ", "low <= high"),
        ("masking.target_scale=[0.1,1.2]", "masking.target_scale=[0.1,1.2]: ", "<= 1"),
        ("masking.target_scale=[0.9,1.0]", "masking.target_scale=[0.9,1.0]: ", "rarely leave any context"),
        ("data.image_size=100000", "data.image_size=100000: ", "less than or equal to 32768"),
        ("data.image_size=8192", "data.image_size=[8192,8192]: ", "try smaller images"),
        ("data.eval_crop=1e-9", "data.eval_crop=1e-09: ", "0.05"),
        ("masking.num_targets=1000000", "masking.num_targets=1000000: ", "1024"),
        ("task.logistic.l2=[1e300]", "task.logistic.l2=1e+300: ", "less than"),
        ("model.width=60000", "model.width=60000: ", "its weights alone need"),
        ("model.depth=1000000", "model.depth=1000000: ", "1024"),
        ("data.batch_size=1000000000", "data.batch_size=1000000000: ", "1048576"),
        ("hardware.accumulation=3", "data.batch_size=64: ", "try 66"),
        ("task.knn.headline=33", "task.knn.headline=33: ", "10,20,100,200"),
        ("data.root=a,b", "data.root=a,b: ", "-m"),
        ("data.root=a=b", "data.root=a=b: ", "quote"),
        ("data=folder", "data.root is not set", "data.root="),
        ("schedule.epochs=inf", "schedule.epochs=inf: ", "finite"),
        ("model.depth=true", "model.depth=true: ", "number"),
        ("optimizer.betas=[0.9,1.0]", "optimizer.betas=1.0: ", "less than 1"),
        ("seed=99999999999999999999999", "seed=99999999999999999999999: ", "less than"),
        ("model.position_grid=[4,4]", "model.position_grid=[4,4]: ", "model.positions=scaled"),
        ("experiment=nope", "experiment=nope: ", "smoke"),
        ("optimizer.lr=true", "optimizer.lr=true: ", "number"),
        ("data.image_size=true", "data.image_size=true: ", "number"),
        ("schedule.momentum.end=1.5", "schedule.momentum.end=1.5: ", "less than or equal to 1"),
        ("masking.name=random", "masking.ratio is not set", "masking.ratio="),
        ("~model.width", "model.width is not set", "model.width="),
        ("checkpoint=x", "checkpoint=x: ", "experiment=decoder"),
        ("optimizer.lr=${nope}", "optimizer.lr: ", "nope"),
    ],
)
def test_a_fault_is_one_line_that_says_what_would_do(override, starts, mentions):
    def run():
        config = train_config("data=digits", override)
        check(config)
        build.sampler(config)

    with pytest.raises(Exception) as caught:  # noqa: PT011  # Hydra's own errors, too
        run()
    line = explain(caught.value, [override])
    assert "\n" not in line
    assert line.startswith(starts)
    assert mentions in line


def test_targets_that_do_not_exist():
    with pytest.raises(UserError, match=r"^objective.target_depths=\[0,2\]: pixels have no depth; try null"):
        check(train_config("objective=pixels", "objective.target_depths=[0,2]"))
    with pytest.raises(UserError, match=r"^objective.standardize_targets=true: needs objective.target=output"):
        check(train_config("objective.target=input", "objective.standardize_targets=true"))
    with pytest.raises(UserError, match=r"^objective.renormalize_targets=true: acts on standardised targets; try"):
        check(train_config("objective.renormalize_targets=true"))
    for depths in ("[0,7]", "[2,1]", "[1,1]"):
        with pytest.raises(UserError, match=r"^objective.target_depths=.*must ascend, and be at most 6"):
            build.networks(train_config(f"objective.target_depths={depths}"))


def test_something_is_minimised():
    with pytest.raises(UserError, match=r"^objective.distance_weight=0.*: nothing is left to minimise; try 1"):
        check(train_config("objective=l2", "objective.distance_weight=0"))
    check(train_config("objective.distance_weight=0"))


def test_pixels_are_predicted_beside_the_output_only():
    check(train_config("objective.pixel_weight=0.5"))
    with pytest.raises(UserError, match=r"^objective.pixel_weight=0.5.*: pixels are predicted beside .*; try 0"):
        check(train_config("objective=pixels", "objective.pixel_weight=0.5"))


def test_regularisers_need_images_to_compare():
    check(train_config("objective=variance_covariance", "data.batch_size=64", "hardware.accumulation=4"))
    with pytest.raises(UserError, match=r"^objective.variance_weight=0.5: .*at least 16, not 8; try"):
        check(train_config("objective=variance_covariance", "data.batch_size=64", "hardware.accumulation=8"))
    with pytest.raises(UserError, match=r"^objective.variance_weight=0.5: .*at least 2, not 1; try"):
        check(train_config("objective=variance_covariance", "data.batch_size=1"))
