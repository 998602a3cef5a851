"""What is measured along a run: its networks on the same held-out images, crops and masks each time."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ijepa.health import measures, probes
from ijepa.health.pace import PREDICTED
from ijepa.masking import Masks
from ijepa.training.protocol import Monitor

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
        masks: of one image; all have the same, so that predictions can be compared at fixed places. None: no masks.
    """

    images: Tensor
    labels: dict[str, Tensor]
    crops: Tensor
    each: int
    masks: Masks | None


@torch.no_grad()
def health_check(monitor: Monitor, heldout: Heldout) -> dict[str, float]:
    """All measures by name, as in metrics.csv after ``health/``.

    Those of features of whole images bear no prefix. Every process of a sharded run must call this, with the networks
    in eval mode.
    """
    found, pooled = _seen(monitor, heldout)
    crops = [monitor.features(batch).double().mean(dim=1) for batch in heldout.crops.split(BATCH)]
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


def _seen(monitor: Monitor, heldout: Heldout) -> tuple[dict[str, float], Tensor]:
    """The spread of features and predictions, how these agree with their targets, and the pooled features [n, D]."""
    encoder, predictor, agreement = measures.Moments(), measures.Moments(), measures.PredictionAgreement()
    pooled = []
    for batch in heldout.images.split(BATCH):
        tokens = monitor.features(batch)  # [B, N, D]
        encoder.add(tokens)
        pooled.append(tokens.double().mean(dim=1))
        if heldout.masks is None:
            continue
        some = batch[::PREDICTED]
        masks = _repeated(heldout.masks, len(some), tokens.device)
        pair = monitor.predictions(some, tokens[::PREDICTED], masks)
        if pair is not None:
            predictions, targets = (part.flatten(1, 2) for part in pair)
            predictor.add(predictions)
            agreement.add(predictions, targets)
    found = encoder.spread()._asdict()
    if predictor.images:
        found |= {f"predictions_{name}": value for name, value in predictor.spread()._asdict().items()}
        found |= {"cosine": agreement.cosine(), "correlation": agreement.correlation()}
    return found, torch.cat(pooled)


def _repeated(masks: Masks, count: int, device: torch.device) -> Masks:
    """The masks of one image for ``count`` of them."""
    valid = None if masks.valid is None else masks.valid.to(device).expand(count, -1)
    return Masks(masks.context.to(device).expand(count, -1), masks.targets.to(device).expand(count, -1, -1), valid)
