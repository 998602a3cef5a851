"""The health check: measures of a run's networks, always on the same held-out images, crops and masks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ijepa.health import measures, probes
from ijepa.health.pace import PREDICT_EVERY
from ijepa.masking import Masks
from ijepa.training.protocol import Monitor

BATCH = 64
"""Images per forward pass; few, so that no more memory is used than in training."""


@dataclass(frozen=True)
class Heldout:
    """The inputs of health checks.

    Attributes:
        images: [n, C, H, W], transformed for evaluation.
        labels: [n] class indices, by label set.
        crops: [m * q, C, H, W], q training crops of each of m images, grouped by image.
        crops_per_image: q.
        masks: of one image, used for all, so that predictions can be compared at fixed positions; None: no predictions.
    """

    images: Tensor
    labels: dict[str, Tensor]
    crops: Tensor
    crops_per_image: int
    masks: Masks | None


@torch.no_grad()
def health_check(monitor: Monitor, heldout: Heldout) -> dict[str, float]:
    """All measures, by their names in metrics.csv after ``health/``.

    The spread of predictions has the prefix ``predictions_``, that of features of whole images has none. Call it with
    the networks in eval mode and, if weights are sharded, in every process.
    """
    result, pooled = _token_measures(monitor, heldout)
    crops = [monitor.features(batch).double().mean(dim=1) for batch in heldout.crops.split(BATCH)]
    result |= {
        "rankme": measures.rankme(pooled),
        "effective_rank": measures.effective_rank(pooled),
        "alpha_req": measures.alpha_req(pooled),
    }
    if heldout.crops_per_image > 1 and len(crops):
        result["lidar"] = measures.lidar(torch.cat(crops).unflatten(0, (-1, heldout.crops_per_image)))
    for name, labels in heldout.labels.items():
        prefix = f"{name}/" if len(heldout.labels) > 1 else ""
        result[f"{prefix}knn"] = probes.knn(pooled, labels)
        result[f"{prefix}linear"] = probes.linear(pooled, labels)
    return result | monitor.measures()


def _token_measures(monitor: Monitor, heldout: Heldout) -> tuple[dict[str, float], Tensor]:
    """Spread of features and of predictions, agreement of predictions with targets; and pooled features [n, D]."""
    encoder, predictor, target = measures.Moments(), measures.Moments(), measures.Moments()
    agreement = measures.PredictionAgreement()
    pooled = []
    for batch in heldout.images.split(BATCH):
        tokens = monitor.features(batch)  # [B, N, D]
        encoder.add(tokens)
        pooled.append(tokens.double().mean(dim=1))
        if heldout.masks is None:
            continue
        images = batch[::PREDICT_EVERY]
        masks = repeated(heldout.masks, len(images), tokens.device)
        pair = monitor.predictions(images, tokens[::PREDICT_EVERY], masks)
        if pair is not None:
            predictions, targets = (part.flatten(1, 2) for part in pair)
            predictor.add(predictions)
            target.add(targets)
            agreement.add(predictions, targets)
    result = encoder.spread()._asdict()
    if predictor.images:
        result |= {f"predictions_{name}": value for name, value in predictor.spread()._asdict().items()}
        result |= {
            "cosine": agreement.cosine(),
            "correlation": agreement.correlation(),
            "context_gain": agreement.context_gain(),
            "cosine_gap": agreement.cosine_gap(),
            "position_explained": 1 - target.spread().share,
        }
    return result, torch.cat(pooled)


def repeated(masks: Masks, count: int, device: torch.device | None = None) -> Masks:
    """The masks of one image, repeated for ``count`` images."""
    valid = None if masks.valid is None else masks.valid.to(device).expand(count, -1)
    return Masks(masks.context.to(device).expand(count, -1), masks.targets.to(device).expand(count, -1, -1), valid)
