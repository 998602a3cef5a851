"""The health check: measures of the three networks on the same held-out images, crops and masks each time."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ijepa.health import measures, probes
from ijepa.health.pace import PREDICTED
from ijepa.masking import Masks
from ijepa.models.encoder import gather
from ijepa.models.jepa import JEPA
from ijepa.models.targets import normalize_targets

BATCH = 64
"""Images per forward pass, so that no more memory is used than in training."""


@dataclass(frozen=True)
class Heldout:
    """The inputs of health checks.

    Attributes:
        images: [n, C, H, W], transformed as for evaluation.
        labels: [n] class indices, by label set.
        crops: [m * q, C, H, W], q training crops of each of m images, grouped by image.
        each: q, crops per image.
        masks: the masks of one image; all images have the same, so that predictions can be compared across images.
    """

    images: Tensor
    labels: dict[str, Tensor]
    crops: Tensor
    each: int
    masks: Masks


@torch.no_grad()
def health_check(jepa: JEPA, heldout: Heldout, prepare: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """All measures by name, as in metrics.csv after ``health/``.

    Measures of the target encoder on whole images have no prefix. Every process of a sharded run must call this.

    Args:
        jepa: the networks; train or eval mode is restored.
        heldout: the inputs.
        prepare: maps a batch of images to the networks' input, on their device.
    """
    training = jepa.training
    jepa.eval()
    try:
        found, pooled = _seen(jepa, heldout, prepare)
        crops = []
        for batch in heldout.crops.split(BATCH):
            tokens = jepa.target_encoder(prepare(batch))
            crops.append(tokens.double().mean(dim=1))
    finally:
        jepa.train(training)
    found |= {
        "rankme": measures.rankme(pooled),
        "effective_rank": measures.effective_rank(pooled),
        "alpha_req": measures.alpha_req(pooled),
    }
    if heldout.each > 1 and len(crops):
        found["lidar"] = measures.lidar(torch.cat(crops).unflatten(0, (-1, heldout.each)))
    for name, labels in heldout.labels.items():
        prefix = f"{name}/" if len(heldout.labels) > 1 else ""
        found[f"{prefix}knn"] = probes.knn(pooled, labels)
        found[f"{prefix}linear"] = probes.linear(pooled, labels)
    return found


def _seen(jepa: JEPA, heldout: Heldout, prepare: Callable[[Tensor], Tensor]) -> tuple[dict[str, float], Tensor]:
    """Spread of the target encoder's tokens and of predictions, their agreement, and pooled features [n, D]."""
    encoder, predictor, agreement = measures.Moments(), measures.Moments(), measures.PredictionAgreement()
    pooled = []
    for batch in heldout.images.split(BATCH):
        images = prepare(batch)
        some = images[::PREDICTED]
        masks = _repeated(heldout.masks, len(some), images.device)
        tokens = jepa.target_encoder(images)  # [B, N, D]
        if jepa.target == "output":
            targets = gather(tokens[::PREDICTED], masks.targets)  # [B / 4, T, K, D]
            targets = normalize_targets(targets) if jepa.normalize else targets
        else:
            targets = jepa.targets(some, masks.targets)
        seen = jepa.context_encoder(some, masks.context, masks.valid)
        predictions = jepa.predictor(seen, masks.context, masks.targets, masks.valid)
        encoder.add(tokens)
        predictor.add(predictions.flatten(1, 2))
        agreement.add(predictions.flatten(1, 2), targets.flatten(1, 2))
        pooled.append(tokens.double().mean(dim=1))
    spread = encoder.spread()._asdict()
    predicted = {f"predictions_{name}": value for name, value in predictor.spread()._asdict().items()}
    agreed = {"cosine": agreement.cosine(), "correlation": agreement.correlation()}
    return {**spread, **predicted, **agreed}, torch.cat(pooled)


def _repeated(masks: Masks, count: int, device: torch.device) -> Masks:
    """The masks of one image for ``count`` of them."""
    valid = None if masks.valid is None else masks.valid.to(device).expand(count, -1)
    return Masks(masks.context.to(device).expand(count, -1), masks.targets.to(device).expand(count, -1, -1), valid)
