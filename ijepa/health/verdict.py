"""What the measures mean together: healthy, warming up, collapsing or diverging, with the evidence and what helps.

A randomly initialised encoder looks collapsed by any absolute measure: its tokens differ by their places, hardly by
their images, in two or three dimensions. So everything is compared with what the same run was at step 0, and with the
best that it has been since. The thresholds were set on runs that were seen to learn and to fail: docs/health.md.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

RISEN = 1.1
"""Spread across images, of that at step 0, from which on a run learns to tell images apart."""
FALLEN = 0.5
"""Spread or rank, of that at step 0, below which a run has lost it."""
LOST = 1 / 3
"""The same, of the best so far."""
TOLD = 0.3
"""Share of the variance across images that is plenty, whatever it was before: weights that came from elsewhere."""
JUMP = 3.0
"""The loss, of the largest so far, and of 1 at least, from which on a run diverges."""
EXPLODED = 20.0
"""The norm of gradients or predictions, of its median so far, from which on a run diverges."""
WORSE = 0.1
"""So much of linear accuracy below that at step 0, on average over label sets, is lost for good."""
SEVERAL = 4
"""Panels that make a median."""

HealthCheck = dict[str, float]


class Verdict(NamedTuple):
    """A verdict at a step.

    verdict: ``healthy``, ``warming up``, ``collapsing`` or ``diverging``.
    kind: of a collapse: ``complete`` (all tokens alike), ``positional`` (tokens hold only where they are) or
        ``dimensional`` (images differ in few dimensions); None otherwise.
    evidence: a line each.
    remedies: what usually helps, a line each; none where all is well.
    """

    step: int
    verdict: str
    kind: str | None
    evidence: list[str]
    remedies: list[str]

    @property
    def title(self) -> str:
        """In two words."""
        return self.verdict if self.kind is None else f"{self.verdict} ({self.kind})"

    @property
    def bad(self) -> bool:
        """Whether something has to be done."""
        return self.verdict in ("collapsing", "diverging")

    @property
    def text(self) -> str:
        """In a line."""
        return f"{self.title}: {'; '.join(self.evidence)}"

    def plain(self) -> dict[str, Any]:
        """For JSON and checkpoints."""
        return self._asdict()


REMEDIES = {
    "complete": [
        "regularisers: objective=variance_covariance",
        "a slower EMA target encoder: schedule.momentum.start=0.996, or more for small batches",
        "normalised targets: objective.normalize_targets=true",
        "a lower learning rate: a third of optimizer.lr",
    ],
    "positional": [
        "regularisers at every position: objective=variance_covariance objective.regularize=tokens",
        "normalise with your images' mean and std: python -m ijepa.data.statistics",
        "more or more varied images: with few, position is the easiest thing to learn",
    ],
    "dimensional": [
        "a stronger covariance regulariser: twice objective.covariance_weight",
        "a lower learning rate, or less weight decay",
    ],
    "diverging": [
        "a lower learning rate: a third of optimizer.lr; a longer warm-up: schedule.warmup_epochs",
        "gradient clipping: optimizer.clip_grad_norm=1",
        "if the run is in bf16: hardware.precision=32-true, to rule out rounding",
        "an earlier checkpoint: python train.py resume=RUN_DIR/checkpoints/step-N.ckpt force=true optimizer.lr=...",
    ],
}


def diagnose(panels: Sequence[HealthCheck], warmup_steps: int = 0) -> Verdict:
    """The verdict on the last of ``panels``.

    Args:
        panels: what `ijepa.health.check.measure` has found so far, with their ``step``, perhaps with ``loss`` and
            ``gradient_norm``; the first is the reference.
        warmup_steps: of the learning rate.
    """
    now, step = panels[-1], int(panels[-1]["step"])
    broken = _divergence(panels)
    if broken:
        return Verdict(step, "diverging", None, broken, REMEDIES["diverging"])
    if len(panels) > 1:
        found = _collapse(panels)
        if found is not None:
            kind, evidence = found
            return Verdict(step, "collapsing", kind, evidence, REMEDIES[kind])
    lost = _forgetting(panels)
    if lost:
        return Verdict(step, "diverging", None, lost, REMEDIES["diverging"])
    first = panels[0]
    evidence = [
        _compared("spread across images", _across(first), _across(now), first),
        _compared("effective rank", first["effective_rank"], now["effective_rank"], first),
        *_accuracies(first, now),
    ]
    if len(panels) == 1:
        return Verdict(
            step,
            "warming up",
            None,
            [f"reference taken at step {step}" if step else "reference taken before training"],
            [],
        )
    risen = RISEN if first["step"] == 0 else 1 - FALLEN  # of a network that was trained before, all but a fall
    if (_across(now) >= risen * _across(first) or now["share"] >= TOLD) and step >= warmup_steps:
        return Verdict(step, "healthy", None, evidence, [])
    return Verdict(step, "warming up", None, evidence, [])


def _divergence(panels: Sequence[HealthCheck]) -> list[str]:
    now, past = panels[-1], panels[:-1]
    wrong = [name for name in ("loss", "gradient_norm", "norm", "predictions_norm")
             if not math.isfinite(now.get(name, 0.0))]  # fmt: skip
    if wrong:
        return [f"{name.replace('_', ' ')} is {now[name]}" for name in wrong]
    evidence = []
    losses = [panel["loss"] for panel in past if "loss" in panel]
    if losses and now["loss"] > JUMP * max(*losses, 1.0):
        evidence.append(f"loss {now['loss']:.3g} (maximum before: {max(losses):.3g})")
    for name in ("gradient_norm", "predictions_norm"):
        *values, last = [panel[name] for panel in past if name in panel] or [0.0]
        most = EXPLODED * median(values) if len(values) >= SEVERAL else math.inf
        if min(now.get(name, 0.0), last) > most:  # at two looks: once is one odd batch
            evidence.append(f"{name.replace('_', ' ')} {now[name]:.3g} (median before: {median(values):.3g})")
    return evidence


def _forgetting(panels: Sequence[HealthCheck]) -> list[str]:
    """Features may lie apart and still tell less than those of an untrained encoder."""
    first, now = panels[0], panels[-1]
    before, after = _linear(first), _linear(now)
    if not after < before - WORSE:  # also without labels
        return []
    line = f"linear accuracy {100 * after:.0f} % (was {100 * before:.0f} % at step {int(first['step'])})"
    return [line, *_accuracies(first, now)]


def _collapse(panels: Sequence[HealthCheck]) -> tuple[str, list[str]] | None:
    first, now = panels[0], panels[-1]
    spread = _fall("spread of tokens", [panel["relative"] for panel in panels], panels)
    across = _fall("spread across images", [_across(panel) for panel in panels], panels)
    rank = _fall("effective rank", [panel["effective_rank"] for panel in panels], panels)
    told = f"{100 * now['share']:.2g} % of the variance is across images"
    if spread is not None:
        return "complete", [spread, told, *_accuracies(first, now)]
    if across is not None and now["share"] < TOLD:
        return "positional", [across, told, *_accuracies(first, now)]
    if rank is not None:
        return "dimensional", [rank, f"RankMe {now['rankme']:.3g}", *_accuracies(first, now)]
    return None


def _fall(name: str, values: list[float], panels: Sequence[HealthCheck]) -> str | None:
    """A line on how the last of ``values`` has fallen below what it was first or at its best; None if it has not."""
    if values[-1] <= FALLEN * values[0]:
        return _compared(name, values[0], values[-1], panels[0])
    best = max(range(len(values)), key=values.__getitem__)
    if values[-1] <= LOST * values[best]:
        return _compared(name, values[best], values[-1], panels[best])
    return None


def _linear(panel: HealthCheck) -> float:
    """The mean over label sets; NaN without."""
    found = [value for name, value in panel.items() if name.rpartition("/")[2] == "linear" and math.isfinite(value)]
    return sum(found) / len(found) if found else math.nan


def _across(panel: HealthCheck) -> float:
    """The spread across images over the tokens' root mean square."""
    return panel["relative"] * math.sqrt(panel["share"])


def _compared(name: str, before: float, now: float, panel: HealthCheck) -> str:
    return f"{name} {now:.3g} (was {before:.3g} at step {int(panel['step'])})"


def _accuracies(first: HealthCheck, now: HealthCheck) -> list[str]:
    """How the nearest neighbours' accuracy went, of every label set."""
    lines = []
    for name, value in now.items():
        label, _, probe = name.rpartition("/")
        if probe == "knn" and math.isfinite(value):
            of = f" of {label}" if label else ""
            lines.append(f"k-NN{of} {100 * value:.0f} % (was {100 * first.get(name, math.nan):.0f} % at step "
                         f"{int(first['step'])})")  # fmt: skip
    return lines
