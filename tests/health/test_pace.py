"""How often a run's health is measured."""

from ijepa.health import pace
from ijepa.training.flops import PretrainingFlops, TransformerFlops


def test_looks_are_rare_enough_and_meet_the_checkpoints():
    cost = PretrainingFlops(64, 48, TransformerFlops(96, 6, 4.0), TransformerFlops(48, 3, 4.0), 96, "output")
    masks = (30, 4, 10)
    every = pace.steps_between(cost, masks, 256, 64, 10_000, 500)
    assert 500 % every == 0
    look = (256 + 32 * 4) * cost.encoder_flops() + 64 * (cost.forward_flops(*masks) - cost.encoder_flops())
    assert look <= pace.SHARE * every * 64 * cost.step_flops(*masks)
    assert pace.steps_between(cost, masks, 256, 4096, 100_000, 500) == 1000  # no more than so many
    assert pace.steps_between(cost, masks, 256, 1, 10_000, 500) % 500 == 0
    assert pace.steps_between(cost, masks, 256, 64, 10_000, None) == 200  # a round number
