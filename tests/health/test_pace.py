"""How often a run's health is checked."""

from ijepa.health import kinds, pace
from ijepa.models.encoder import Encoder
from ijepa.models.predictor import Predictor
from ijepa.training.flops import PretrainingFlops
from ijepa.training.protocol import MonitorFlops


class Costs:
    def __init__(self, of_image):
        self.of_image = of_image

    def flops(self, masks):
        return self.of_image


def test_checks_are_rare_enough_and_meet_the_checkpoints():
    encoder = Encoder((32, 32), 4, 3, 96, 6, 3, 4.0)
    cost = PretrainingFlops(encoder, Predictor(96, 96, (8, 8), 48, 3, 3), (3, 32, 32), "output")
    masks = (30, 4, 10)
    one = MonitorFlops(cost.encoder_flops(), cost.forward_flops(*masks) - cost.encoder_flops())
    step = cost.step_flops(*masks)
    check = (256 + 32 * 4) * cost.encoder_flops() + 64 * (cost.forward_flops(*masks) - cost.encoder_flops())
    assert kinds.ENCODER.flops(Costs(one), None, 256) == check
    every = pace.steps_between(check, 64 * step, 10_000, 500)
    assert 500 % every == 0
    assert check <= pace.MAX_FRACTION * every * 64 * step
    assert pace.steps_between(check, 4096 * step, 100_000, 500) == 1000  # no more than so many
    assert pace.steps_between(check, step, 10_000, 500) % 500 == 0
    assert pace.steps_between(check, 64 * step, 10_000, None) == 200  # a round number
