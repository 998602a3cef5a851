"""Verdicts on synthetic features of each kind."""

import math

import numpy as np
import pytest
import torch

from ijepa.health import measures
from ijepa.health.verdict import diagnose

IMAGES, PLACES, D = 64, 16, 24


def tokens(across=1.0, places=1.0, constant=0.0, rank=D, seed=0):
    """Features [n, N, D]: what images, places and all have in common, each of its own size."""
    draw = np.random.default_rng(seed).normal
    image = draw(size=(IMAGES, 1, rank)) @ draw(size=(rank, D)) / math.sqrt(rank)
    found = across * image + places * draw(size=(1, PLACES, D)) + constant * draw(size=D)
    return torch.from_numpy(found)


def panel(step, features, **others):
    moments = measures.Moments()
    moments.add(features)
    pooled = features.mean(dim=1)
    return {
        "step": step,
        **moments.spread()._asdict(),
        "rankme": measures.rankme(pooled),
        "effective_rank": measures.effective_rank(pooled),
        "predictions_norm": 3.0,
        **({"loss": 0.5, "gradient_norm": 1.0} if step else {}),
        **others,
    }


INITIAL = {"across": 0.2, "places": 1.0, "constant": 1.0, "rank": 6}
"""As an untrained encoder's: most is common to all or belongs to the place."""
START = panel(0, tokens(**INITIAL))


def verdict(*panels, warmup=0):
    return diagnose([START, *panels], warmup)


def test_before_training():
    assert diagnose([START]).verdict == "warming up"


def test_healthy():
    found = verdict(panel(100, tokens(0.4, rank=12), knn=0.6))
    assert (found.verdict, found.kind, found.bad, found.remedies) == ("healthy", None, False, [])
    assert "spread across images" in found.text
    assert verdict(panel(100, tokens(0.4, rank=12)), warmup=101).verdict == "warming up"


def test_context_unused():
    def panels(*gains, **features):
        given = features or {"across": 0.4, "rank": 12}
        return [panel(100 * number, tokens(**given), context_gain=gain, position_explained=0.7, cosine_gap=0.002)
                for number, gain in enumerate(gains, start=1)]  # fmt: skip

    found = verdict(*panels(0.3, 0.01, 0.01))
    assert (found.verdict, found.bad) == ("context unused", True)
    assert found.remedies
    assert "predicts position only: context gain 0.01" in found.text
    assert "position explains 70 % of the targets' variance" in found.text
    assert verdict(*panels(0.3, 0.01, 0.01), warmup=301).verdict == "warming up"
    assert verdict(*panels(0.01, 0.01)).verdict == "healthy"  # too early to tell
    assert verdict(*panels(0.01, 0.1, 0.01)).verdict == "healthy"
    collapsed = panels(0.01, 0.01, 0.01, across=0.01, places=0.05, constant=2.0, rank=3)
    assert verdict(*collapsed).verdict == "collapsing"  # the worse of the two


def test_nothing_learnt():
    """Spread-out features that tell no more about the labels than before training."""

    def panels(*knn, linear=0.4):
        start = START | {"knn": 0.3, "linear": 0.4}
        checks = [panel(10 * n, tokens(0.4, rank=12), knn=k, linear=linear) for n, k in enumerate(knn, start=1)]
        return [start, *checks]

    found = diagnose(panels(0.4, 0.4, 0.3, 0.28, 0.31, 0.3, 0.3))
    assert (found.verdict, found.bad, found.failing) == ("nothing learnt", True, False)
    assert found.remedies
    assert "k-NN accuracy 30 % in the last 4 checks (was 30 % before training)" in found.text
    lost = panels(0.3, 0.3, 0.3, 0.25, 0.25, 0.25, 0.25, linear=0.42)  # k-NN has lost more than linear has gained
    assert diagnose(lost).verdict == "nothing learnt"
    for checks in (
        panels(0.3, 0.3, 0.3, 0.3, 0.3, 0.34, 0.3),  # k-NN has risen
        panels(0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, linear=0.45),
        panels(0.3, 0.3, 0.3, 0.3, 0.3),  # too early to tell
        panels(*[math.nan] * 8, linear=math.nan),  # no labels
    ):
        assert diagnose(checks).verdict == "healthy"
    assert diagnose(panels(*[0.3] * 8), warmup_steps=100).verdict == "warming up"


def test_nothing_has_moved_yet():
    assert verdict(panel(100, tokens(**INITIAL, seed=1))).verdict == "warming up"


def test_weights_that_came_from_elsewhere_are_healthy_from_the_start():
    start = panel(0, tokens(2.0, 0.5))
    assert diagnose([start, panel(10, tokens(2.0, 0.5, seed=1))]).verdict == "healthy"


def test_complete_collapse():
    found = verdict(panel(100, tokens(0.01, 0.05, 1.0)))
    assert found.title == "collapsing (complete)"
    assert any("momentum" in remedy for remedy in found.remedies)
    assert any("spread of tokens" in line for line in found.evidence)


def test_a_complete_collapse_of_which_the_rest_is_across_images():
    found = verdict(panel(100, tokens(0.1, 0.02, 2.0)))
    assert found.title == "collapsing (complete)"
    assert "% of the variance is across images" in found.text


def test_features_that_tell_less_than_before_training():
    start, good = START | {"a/linear": 0.9, "b/linear": 0.5}, tokens(0.4, rank=12)
    assert diagnose([start, panel(9, good) | {"a/linear": 0.85, "b/linear": 0.4}]).verdict == "healthy"
    assert diagnose([start, panel(9, good) | {"a/linear": 0.7, "b/linear": 0.4}]).verdict == "diverging"


def test_nothing_but_a_constant():
    assert verdict(panel(100, torch.ones(IMAGES, PLACES, D))).title == "collapsing (complete)"


def test_positional_collapse_while_tokens_are_far_apart():
    found = verdict(panel(100, tokens(0.02, 2.0, 1.0, rank=6)))
    assert found.title == "collapsing (positional)"
    assert any("tokens" in remedy for remedy in found.remedies)


def test_dimensional_collapse_while_images_are_far_apart():
    found = verdict(panel(100, tokens(1.0, rank=1)))
    assert found.title == "collapsing (dimensional)"


def test_a_collapse_late_in_a_healthy_run():
    good = [panel(step, tokens(1.0, rank=12, seed=step)) for step in (100, 200, 300)]
    assert verdict(*good).verdict == "healthy"
    assert verdict(*good, panel(400, tokens(0.25, 1.0, 1.0, rank=12))).title == "collapsing (positional)"
    assert verdict(*good, panel(400, tokens(1.0, rank=2))).title == "collapsing (dimensional)"


@pytest.mark.parametrize(
    "broken",
    [{"loss": math.nan}, {"gradient_norm": 25.0}, {"gradient_norm": math.inf}, {"norm": math.nan},
     {"predictions_norm": 90.0},],
)  # fmt: skip
def test_divergence(broken):
    good = [panel(step, tokens(0.4, rank=12, seed=step)) for step in range(100, 600, 100)]
    now = panel(600, tokens(0.4, rank=12)) | broken
    found = verdict(*good, now, now | {"step": 700})
    assert found.title == "diverging"
    assert any("lr" in remedy for remedy in found.remedies)
    assert len(found.evidence) == 1


def test_a_loss_that_jumps():
    good = [panel(step, tokens(0.4, rank=12, seed=step)) for step in range(100, 600, 100)]
    assert verdict(*good, panel(600, tokens(0.4, rank=12), loss=3.5)).verdict == "diverging"
    assert verdict(*good, panel(600, tokens(0.4, rank=12), loss=2.5)).verdict == "healthy"


def test_one_odd_batch_is_no_divergence():
    good = [panel(step, tokens(0.4, rank=12, seed=step)) for step in range(100, 600, 100)]
    odd = panel(600, tokens(0.4, rank=12)) | {"gradient_norm": 150.0}
    assert verdict(*good, odd).verdict == "healthy"
    assert verdict(*good, odd, panel(700, tokens(0.4, rank=12))).verdict == "healthy"


def test_a_loss_that_rises_as_it_usually_does_is_no_divergence():
    losses = [0.9, 0.2, 0.1, 0.3, 0.5, 0.6]
    assert (
        verdict(*(panel(i + 1, tokens(0.4, rank=12), loss=loss) for i, loss in enumerate(losses))).verdict == "healthy"
    )


def test_a_first_look_at_a_network_that_was_trained_before():
    first = panel(100, tokens(0.4, rank=12))
    assert diagnose([first]).evidence == ["reference taken at step 100"]
    assert diagnose([first, panel(200, tokens(0.4, rank=12, seed=1))]).verdict == "healthy"
    assert diagnose([first, panel(200, tokens(0.05, rank=12))]).verdict == "collapsing"
