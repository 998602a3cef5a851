"""Health checks of a decoder's run."""

import dataclasses

import pytest
import torch

from ijepa.health import kinds
from ijepa.health.check import Heldout
from ijepa.health.decoder import diagnose_decoder
from ijepa.health.specs import BY_NOISE
from ijepa.masking import Masks
from ijepa.training.protocol import DecoderMonitor

MASKS = Masks(torch.arange(2)[None], torch.zeros(1, 1, 2).long())
HELDOUT = Heldout(torch.arange(64.0).view(64, 1, 1, 1), {}, torch.empty(0), 4, MASKS)


class Monitor(DecoderMonitor):
    def __init__(self, own=1.0, another=2.0, none=4.0, withheld=True, conditioned=True):
        self.told = {"own": own, "another": another, "none": none}
        self.withheld, self.conditioned, self.seen = withheld, conditioned, []

    def losses(self, images, masks):
        self.seen.append((images, masks))
        return {name: value * torch.arange(1, 6) for name, value in self.told.items()}

    def flops(self, masks):
        return 10.0


def check(step, noise, gain, **values):
    return {"step": step, **dict.fromkeys(BY_NOISE.values(), noise), "gain_over_another": gain, **values}


def test_measures_are_losses_by_noise_level_and_gains():
    monitor = Monitor()
    found = kinds.kind_of(monitor).check(monitor, HELDOUT)
    assert found == {"noise_10": 1, "noise_30": 2, "noise_50": 3, "noise_70": 4, "noise_90": 5,
                     "gain_over_another": 0.5, "gain_over_none": 0.75}  # fmt: skip
    assert set(found) <= {spec.name for spec in kinds.measures(decoder=True)}
    ((images, masks),) = monitor.seen
    assert len(images) == len(masks.context) == len(masks.targets) == 16
    assert kinds.kind_of(monitor).flops(monitor, HELDOUT.masks, 32) == 80


def test_with_few_images_all_are_used():
    for count, used in ((20, 20), (33, 17), (4, 4), (1, 1)):
        monitor = Monitor()
        found = kinds.DECODER.check(monitor, dataclasses.replace(HELDOUT, images=HELDOUT.images[:count]))
        assert len(monitor.seen[0][0]) == used
        assert ("gain_over_another" in found) == (used > 1)  # of one image, another's is its own


def test_a_decoder_without_a_representation_has_no_gain():
    assert set(kinds.DECODER.check(Monitor(conditioned=False), HELDOUT)) == set(BY_NOISE.values())
    assert "gain_over_none" not in kinds.DECODER.check(Monitor(withheld=False), HELDOUT)


def test_verdicts():
    start = check(0, 1.0, 0.0)
    assert diagnose_decoder([start]).verdict == "warming up"
    good = [start, check(10, 0.5, 0.3)]
    assert diagnose_decoder(good).verdict == "healthy"
    assert diagnose_decoder(good).evidence == ["loss 0.5 (was 1 at step 0)",
                                               "gain over another image's representation 0.30 (0: unused)"]  # fmt: skip
    assert diagnose_decoder(good, warmup_steps=20).verdict == "warming up"
    unused = [start, *(check(step, 0.5, 0.0) for step in (10, 20, 30))]
    assert diagnose_decoder(unused[:3]).verdict == "warming up"
    found = diagnose_decoder(unused)
    assert found.verdict == "representation unused"
    assert found.bad
    assert found.remedies
    assert diagnose_decoder(unused, warmup_steps=20).verdict == "representation unused"
    assert diagnose_decoder(unused, warmup_steps=25).verdict == "warming up"
    assert diagnose_decoder([*unused, check(40, 0.4, 0.1)]).verdict == "healthy"
    assert diagnose_decoder([*good, check(20, float("nan"), 0.3)]).verdict == "diverging"
    assert diagnose_decoder([*good, check(20, 0.5, 0.3, skipped=2)]).verdict == "diverging"
    assert diagnose_decoder([*good, check(20, 0.5, 0.3, loss=float("inf"))]).verdict == "diverging"
    plain = [{**each} for each in good]
    for each in plain:
        del each["gain_over_another"]
    assert diagnose_decoder(plain).verdict == "healthy"


def test_losses_of_a_module():
    """Own, another's and no representation, of one block at each noise level, without gradients; ``flops`` counts."""
    pytest.importorskip("diffusers", reason="only experiment=decoder needs it")
    from ijepa.models.conditions import Conditions
    from ijepa.models.decoder import SketchDecoder
    from ijepa.models.diffusion import Diffusion, Sampling
    from ijepa.models.encoder import Encoder
    from ijepa.models.pretrained import Spec
    from ijepa.models.sketcher import Sketcher
    from ijepa.training.decoder import DecoderTraining

    torch.manual_seed(0)
    encoder = Encoder((16, 16), 4, 3, 24, 1, 2, 2.0)
    spec = Spec((16, 16), 4, 3, 24, 1, 2, 2.0, "sincos", None, mean=(0.5,) * 3, std=(0.5,) * 3)
    network = SketchDecoder(3, 8, 24, "block", 4, 16, 1, 2)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    conditions = Conditions("target", True, (4, 4), encoder)
    sketcher = Sketcher(network, conditions, Diffusion("v"), Sampling("dpm", 2, 1.0), spec)
    module = DecoderTraining(sketcher, 0, 0.1, None, (0.9, 0.99), 1e-8)
    monitor = module.monitor()
    images = torch.rand(6, 3, 16, 16)
    masks = Masks(torch.arange(4).expand(6, -1), torch.tensor([[[5, 6, 9, 10], [0, 1, 4, 5]]]).expand(6, -1, -1))
    with torch.no_grad():
        found = monitor.losses(images, masks)
        assert all(losses.shape == (5,) for losses in found.values())
        assert len({losses.sum().item() for losses in found.values()}) == 3
        rolled = monitor.losses(images.roll(1, 0), masks)
    assert not torch.equal(found["own"], rolled["own"])  # noise is of the position, not of the image
    module.decoder.requires_grad_(False).zero_grad()
    for parameter in module.decoder.parameters():
        parameter.zero_()
    with torch.no_grad():
        again = monitor.losses(images, masks)
    assert all(torch.equal(again[name], found[name]) for name in found)  # of the averaged weights
    assert monitor.flops(Masks(masks.context[:1], masks.targets[:1])) > 0
