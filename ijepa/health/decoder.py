"""Health of a decoder's run: its losses by noise level, and whether it uses the representation."""

from collections.abc import Sequence

import torch

from ijepa.health.check import Heldout, repeated
from ijepa.health.pace import PREDICT_EVERY
from ijepa.health.specs import BY_NOISE
from ijepa.health.verdict import MIN_CHECKS, REMEDIES, HealthCheck, Verdict, divergence
from ijepa.training.protocol import DecoderMonitor

UNUSED = 0.02
"""Representation unused: gain over another image's after warm-up, in two health checks in a row, less than."""
FEW = 16
"""Held-out images of which all are used."""
HINTS = [
    "a longer run: schedule.epochs; shapes are learnt first, then what the representation adds",
    "all patches of the representation instead of their average: decoder.pooled=false",
    "a look at the encoder: does python evaluate.py checkpoint=RUN_DIR task=knn find anything in its features?",
]


@torch.no_grad()
def decoder_check(monitor: DecoderMonitor, heldout: Heldout) -> dict[str, float]:
    """All measures of a decoder, by their names in metrics.csv after ``health/``; see `health_check`."""
    assert heldout.masks is not None
    images = heldout.images[:: max(min(PREDICT_EVERY, len(heldout.images) // FEW), 1)]
    losses = monitor.losses(images, repeated(heldout.masks, len(images)))
    own = losses["own"].double()
    result = dict(zip(BY_NOISE.values(), own.tolist(), strict=True))
    if monitor.conditioned and len(images) > 1:
        result["gain_over_another"] = 1 - (own.sum() / losses["another"].double().sum()).item()
        if monitor.withheld:
            result["gain_over_none"] = 1 - (own.sum() / losses["none"].double().sum()).item()
    return result


def diagnose_decoder(checks: Sequence[HealthCheck], warmup_steps: int = 0) -> Verdict:
    """The verdict on the last of ``checks``, results of `decoder_check`; see `ijepa.health.verdict.diagnose`."""
    first, now, step = checks[0], checks[-1], int(checks[-1]["step"])
    evidence = divergence([{**check, "norm": _mean_loss(check)} for check in checks])
    if evidence:
        return Verdict(step, "diverging", None, evidence, REMEDIES["diverging"])
    if len(checks) == 1:
        return Verdict(step, "warming up", None, [f"loss {_mean_loss(now):.3g} at step {step}"], [])
    fallen = f"loss {_mean_loss(now):.3g} (was {_mean_loss(first):.3g} at step {int(first['step'])})"
    evidence, gain = [fallen], now.get("gain_over_another")  # none: of nothing, or of a single image
    if gain is not None:
        evidence.append(f"gain over another image's representation {gain:.2f} (0: unused)")
        used = max(check["gain_over_another"] for check in checks[-2:]) >= UNUSED
        if not used:
            waits = len(checks) < MIN_CHECKS or checks[-2]["step"] < warmup_steps
            verdict = "warming up" if waits else "representation unused"
            return Verdict(step, verdict, None, evidence, [] if waits else HINTS)
    # A first check after step 0 has seen weights that this run has trained: they need not get better.
    learns = step >= warmup_steps and (_mean_loss(now) < _mean_loss(first) or first["step"] > 0)
    return Verdict(step, "healthy" if learns else "warming up", None, evidence, [])


def _mean_loss(check: HealthCheck) -> float:
    return sum(check[name] for name in BY_NOISE.values()) / len(BY_NOISE)
