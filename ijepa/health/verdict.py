"""The verdict from an encoder's measures: healthy, warming up, context unused, nothing learnt, collapsing or
diverging; evidence and remedies. Of a decoder's: `ijepa.health.decoder`.

By any absolute measure, a randomly initialised encoder looks collapsed: its tokens differ between positions, hardly
between images, and in two or three dimensions only. So every measure is compared with its value at step 0 and with its
best value so far. The thresholds were set on runs that learn and runs that fail: docs/health.md.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

RISEN = 1.1
"""Healthy: relative spread across images, compared with step 0, at least."""
FALLEN = 0.5
"""Collapsing: spread or rank, compared with step 0, at most."""
LOST = 1 / 3
"""Collapsing: spread or rank, compared with the best so far, at most."""
ACROSS = 0.3
"""Healthy in any case: fraction of the variance that is across images, at least; for runs from existing weights."""
UNUSED = 0.02
"""Context unused: context gain after warm-up, in two health checks in a row, less than."""
JUMP = 3.0
"""Diverging: loss, compared with the largest so far (and with 1), more than."""
EXPLODED = 20.0
"""Diverging: norm of gradients or predictions, compared with its median so far, more than."""
FORGOTTEN = 0.1
"""Diverging: drop of linear accuracy since step 0, averaged over label sets, more than."""
MIN_CHECKS = 4
"""Minimum number of health checks for a median, and before the context can count as unused."""

HealthCheck = dict[str, float]
"""The measures of one health check, by name, and its ``step``."""


class Verdict(NamedTuple):
    """A verdict at a step.

    verdict: ``healthy``, ``warming up``, ``context unused``, ``nothing learnt``, ``collapsing`` or ``diverging``;
        of a decoder also ``representation unused``.
    kind: of a collapse: ``complete`` (all tokens alike), ``positional`` (tokens encode only their position) or
        ``dimensional`` (images differ in few dimensions); None otherwise.
    evidence: one line per observation.
    remedies: what usually helps, one line each; empty unless the verdict is bad.
    """

    step: int
    verdict: str
    kind: str | None
    evidence: list[str]
    remedies: list[str]

    @property
    def title(self) -> str:
        """The verdict with the kind of collapse."""
        return self.verdict if self.kind is None else f"{self.verdict} ({self.kind})"

    @property
    def failing(self) -> bool:
        """Whether features get worse: no checkpoint is chosen here."""
        return self.verdict in ("collapsing", "diverging")

    @property
    def bad(self) -> bool:
        """Whether the run needs attention."""
        return self.failing or self.verdict in ("context unused", "nothing learnt", "representation unused")

    @property
    def text(self) -> str:
        """Title and evidence in one line."""
        return f"{self.title}: {'; '.join(self.evidence)}"

    def plain(self) -> dict[str, Any]:
        """As a dict, for JSON and checkpoints."""
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
    "context unused": [
        "targets less what position explains: objective.standardize_targets=true",
        "weights that let the content through: model.init=whitened, for small patches",
        "a larger context: masking=random",
        "a faster start: three times optimizer.lr; schedule.momentum.start=0.98",
    ],
    "nothing learnt": [
        "regularisers: objective=variance_covariance",
        "a larger budget: schedule.epochs; published recipes need far more than small ones do",
        "the recipe for small images: experiment=small_images",
        "a higher learning rate: three times optimizer.lr",
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


def diagnose(checks: Sequence[HealthCheck], warmup_steps: int = 0) -> Verdict:
    """The verdict on the last of ``checks``.

    Args:
        checks: results of `ijepa.health.check.health_check` so far, each with ``step`` and optionally ``loss`` and
            ``gradient_norm``, or ``skipped``, how many steps in a row were skipped; the first is the reference.
        warmup_steps: length of the learning rate's warm-up.
    """
    now, step = checks[-1], int(checks[-1]["step"])
    found = divergence(checks)
    if found:
        return Verdict(step, "diverging", None, found, REMEDIES["diverging"])
    if len(checks) > 1:
        collapse = _collapse(checks)
        if collapse is not None:
            kind, evidence = collapse
            return Verdict(step, "collapsing", kind, evidence, REMEDIES[kind])
    forgetting = _forgetting(checks)
    if forgetting:
        return Verdict(step, "diverging", None, forgetting, REMEDIES["diverging"])
    unused = _unused_context(checks) if step >= warmup_steps else []
    if unused:
        return Verdict(step, "context unused", None, unused, REMEDIES["context unused"])
    idle = _nothing_learnt(checks) if step >= warmup_steps else []
    if idle:
        return Verdict(step, "nothing learnt", None, idle, REMEDIES["nothing learnt"])
    first = checks[0]
    evidence = [
        _compared("relative spread across images", _across(first), _across(now), first),
        _compared("effective rank", first["effective_rank"], now["effective_rank"], first),
        *_accuracies(first, now),
    ]
    if len(checks) == 1:
        return Verdict(
            step,
            "warming up",
            None,
            [f"reference taken at step {step}" if step else "reference taken before training"],
            [],
        )
    # A first check after step 0 has seen weights trained by this run: they need not rise, only not fall. A run from
    # existing weights (init=FILE) has its first check at step 0.
    risen = RISEN if first["step"] == 0 else 1 - FALLEN
    if (_across(now) >= risen * _across(first) or now["share"] >= ACROSS) and step >= warmup_steps:
        return Verdict(step, "healthy", None, evidence, [])
    return Verdict(step, "warming up", None, evidence, [])


def divergence(checks: Sequence[HealthCheck]) -> list[str]:
    """Evidence that losses, gradients or predictions grow, or are not finite; empty if there is none."""
    now, past = checks[-1], checks[:-1]
    not_finite = [name for name in ("loss", "gradient_norm", "norm", "predictions_norm")
             if not math.isfinite(now.get(name, 0.0))]  # fmt: skip
    if now.get("skipped", 0) > 1:
        return [f"{now['skipped']:.0f} steps in a row were skipped: loss or gradients not finite"]
    if not_finite:
        return [f"{name.replace('_', ' ')} is {now[name]}" for name in not_finite]
    evidence = []
    losses = [check["loss"] for check in past if "loss" in check]
    if losses and now.get("loss", 0.0) > JUMP * max(*losses, 1.0):
        evidence.append(f"loss {now['loss']:.3g} (maximum before: {max(losses):.3g})")
    for name in ("gradient_norm", "predictions_norm"):
        *values, last = [check[name] for check in past if name in check] or [0.0]
        limit = EXPLODED * median(values) if len(values) >= MIN_CHECKS else math.inf
        if min(now.get(name, 0.0), last) > limit:  # in two health checks in a row: once may be an odd batch
            evidence.append(f"{name.replace('_', ' ')} {now[name]:.3g} (median before: {median(values):.3g})")
    return evidence


def _forgetting(checks: Sequence[HealthCheck]) -> list[str]:
    """Evidence that features, although spread, are less informative than those of an untrained encoder."""
    first, now = checks[0], checks[-1]
    before, after = _accuracy(first, "linear"), _accuracy(now, "linear")
    if not after < before - FORGOTTEN:  # also true without labels, of NaN
        return []
    line = f"linear accuracy {100 * after:.0f} % (was {100 * before:.0f} % at step {int(first['step'])})"
    return [line, *_accuracies(first, now)]


def _unused_context(checks: Sequence[HealthCheck]) -> list[str]:
    """Evidence that predictions depend on the position only, although targets differ between images."""
    now = checks[-1]
    gains = [check.get("context_gain", math.inf) for check in checks[-2:]]  # it takes some steps to use the context
    if len(checks) < MIN_CHECKS or not max(gains) < UNUSED:
        return []
    return [
        f"predicts position only: context gain {now['context_gain']:.2f} (0: another image's context is as good)",
        f"position explains {100 * now['position_explained']:.0f} % of the targets' variance",
        f"cosine gap {now['cosine_gap']:.3f}",
        *_accuracies(checks[0], now),
    ]


def _nothing_learnt(checks: Sequence[HealthCheck]) -> list[str]:
    """Evidence that features tell no more about the labels than before training, in half of the checks on average.

    The mean of both probes counts: one of them may rise by an image or two by chance.
    """
    first, late = checks[0], checks[len(checks) // 2 :]
    if first["step"] or len(late) < MIN_CHECKS:  # one check is of few images
        return []
    evidence, gained = [], 0.0
    for title, probe in (("k-NN", "knn"), ("linear", "linear")):
        before, after = _accuracy(first, probe), sum(_accuracy(check, probe) for check in late) / len(late)
        gained += after - before
        rise = f"{100 * after:.0f} % in the last {len(late)} checks (was {100 * before:.0f} % before training)"
        evidence.append(f"{title} accuracy {rise}")
    return evidence if gained <= 1e-9 else []  # without labels NaN


def _collapse(checks: Sequence[HealthCheck]) -> tuple[str, list[str]] | None:
    first, now = checks[0], checks[-1]
    spread = _fall("spread of tokens", [check["relative"] for check in checks], checks)
    across = _fall("relative spread across images", [_across(check) for check in checks], checks)
    rank = _fall("effective rank", [check["effective_rank"] for check in checks], checks)
    share = f"{100 * now['share']:.2g} % of the variance is across images"
    if spread is not None:
        return "complete", [spread, share, *_accuracies(first, now)]
    if across is not None and now["share"] < ACROSS:
        return "positional", [across, share, *_accuracies(first, now)]
    if rank is not None:
        return "dimensional", [rank, f"RankMe {now['rankme']:.3g}", *_accuracies(first, now)]
    return None


def _fall(name: str, values: list[float], checks: Sequence[HealthCheck]) -> str | None:
    """Evidence that the last of ``values`` has fallen relative to the first or the best; None if it has not."""
    if values[-1] <= FALLEN * values[0]:
        return _compared(name, values[0], values[-1], checks[0])
    best = max(range(len(values)), key=values.__getitem__)
    if values[-1] <= LOST * values[best]:
        return _compared(name, values[best], values[-1], checks[best])
    return None


def _accuracy(check: HealthCheck, probe: str) -> float:
    """Accuracy of ``knn`` or ``linear``, averaged over label sets; NaN without labels."""
    values = [value for name, value in check.items() if name.rpartition("/")[2] == probe]
    accuracies = [value for value in values if math.isfinite(value)]
    return sum(accuracies) / len(accuracies) if accuracies else math.nan


def _across(check: HealthCheck) -> float:
    """Relative spread across images: ``std_across`` / the tokens' root mean square."""
    return check["relative"] * math.sqrt(check["share"])


def _compared(name: str, before: float, now: float, check: HealthCheck) -> str:
    return f"{name} {now:.3g} (was {before:.3g} at step {int(check['step'])})"


def _accuracies(first: HealthCheck, now: HealthCheck) -> list[str]:
    """k-NN accuracy now and in the first health check, one line per label set."""
    lines = []
    for name, value in now.items():
        label, _, probe = name.rpartition("/")
        if probe == "knn" and math.isfinite(value):
            of = f" of {label}" if label else ""
            lines.append(f"k-NN{of} {100 * value:.0f} % (was {100 * first.get(name, math.nan):.0f} % at step "
                         f"{int(first['step'])})")  # fmt: skip
    return lines
