"""How close samples are to the truth, beside those of another image's representation and of none."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.config.custom import first_line
from ijepa.config.tasks import Decode
from ijepa.evaluation.decoding.classifier import BlockClassifier
from ijepa.evaluation.measures import MetricValue
from ijepa.evaluation.tasks import ModelResults
from ijepa.util.errors import ConfigError

OWN, OTHER, NOTHING, TRUTH = "its own", "another's", "none", "the block"
"""Rows of the table: what pictures are drawn from, and what should be drawn."""
LPIPS_SIZE = 64
"""Smaller pictures are enlarged to this for LPIPS, whose network halves them five times."""
INCEPTION_SIZE, INCEPTION_FEATURES = 299, 2048
CHUNK = 256
"""Pictures at once, for distances and external networks."""


class Drawn(NamedTuple):
    """The pictures of n blocks, all in 0..1 and of what is compared: the block, or the whole image.

    Attributes:
        truth: [n, C, S, S].
        samples: [n, R, C, S, S], by `OWN`, `OTHER` and `NOTHING`.
        labels: [n]; -1: unknown.
    """

    truth: Tensor
    samples: dict[str, Tensor]
    labels: Tensor


Distance = Callable[[Tensor, Tensor], Tensor]
"""From pictures [n, C, S, S] and others to [n]."""


class Downloaded(NamedTuple):
    """Measures by networks whose weights are downloaded; None: not wanted."""

    lpips: Distance | None = None
    inception: Any = None


def download(config: Decode, device: torch.device) -> Downloaded:
    """The measures that ``config`` wants.

    Raises:
        ConfigError: when weights cannot be loaded.
    """
    lpips = _lpips(device) if config.lpips else None
    return Downloaded(lpips, _inception(device) if config.fid == "inception" else None)


def measure(
    drawn: Drawn, classifier: BlockClassifier | None, trained: Tensor, fid: str | None, downloaded: Downloaded
) -> list[ModelResults]:
    """A row for each of `OWN`, `OTHER`, `NOTHING` and `TRUTH`.

    Args:
        drawn: pictures.
        classifier: of blocks; None: there are no classes.
        trained: [m, C, S, S], blocks of training images.
        fid: see the configuration.
        downloaded: see `download`.
    """
    rows = {name: dict[str, MetricValue]() for name in (*drawn.samples, TRUTH)}
    distances: dict[str, Distance] = {"decode_rmse": _rmse}
    if classifier is not None:
        distances["decode_distance"] = lambda one, other: _cosine(classifier, one, other)
    if downloaded.lpips is not None:
        distances["decode_lpips"] = downloaded.lpips
    for name, distance in distances.items():
        found = {row: _each(distance, drawn.truth, samples) for row, samples in drawn.samples.items()}
        for row, values in found.items():
            rows[row][name] = _mean(values)
        closer = {"decode_distance": "decode_closer", "decode_rmse": "decode_closer_pixels"}.get(name)
        if closer is not None:
            better = (found[OWN] < found[OTHER]).double() + 0.5 * (found[OWN] == found[OTHER]).double()
            rows[OWN][closer] = _mean(better)
    frechet = downloaded.inception
    if fid == "features" and classifier is not None:
        frechet = _frechet(classifier, drawn.truth.device)
    rows[OWN]["decode_variance"] = variance(drawn.samples[OWN], drawn.samples[OTHER])
    for row, pictures in [*((row, samples[:, 0]) for row, samples in drawn.samples.items()), (TRUTH, drawn.truth)]:
        rows[row]["decode_nearest"] = _mean(nearest(pictures, trained)[0])
        if classifier is not None:
            known = drawn.labels >= 0
        if classifier is not None and bool(known.any()):
            correct = (classifier.predict(pictures[known]) == drawn.labels[known]).double()
            rows[row]["decode_label"] = _mean(correct)
        if frechet is not None and row != TRUTH:
            rows[row]["decode_fid"] = MetricValue(_frechet_distance(frechet, drawn.truth, pictures))
    return [ModelResults(name, values) for name, values in rows.items()]


def variance(own: Tensor, other: Tensor) -> MetricValue:
    """Variance among samples of one representation, as a fraction of that with another image's at the same position.

    Half of the squared difference of two samples, on average: of one representation, and of two. 1: pictures do not
    depend on the representation.

    Args:
        own: samples [n, R, C, S, S].
        other: likewise, from other representations.
    """
    within = (own[:, 0] - own[:, 1]).square().flatten(1).mean(dim=1)
    between = (own[:, 0] - other[:, 1]).square().flatten(1).mean(dim=1)
    per_image = torch.stack([within, between], dim=1).double().cpu()
    return MetricValue((per_image[:, 0].sum() / per_image[:, 1].sum()).item(), per_image)


def nearest(pictures: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [n] (root mean square of pixels) to the nearest of ``among``, and its index [n]."""
    found = [torch.cdist(part.flatten(1), among.flatten(1)).min(dim=1) for part in pictures.split(CHUNK)]
    size = pictures[0].numel() ** 0.5
    return torch.cat([part.values for part in found]) / size, torch.cat([part.indices for part in found])


def _each(distance: Callable[[Tensor, Tensor], Tensor], truth: Tensor, samples: Tensor) -> Tensor:
    """The mean distance [n] of each block's samples [n, R, ...] to the truth [n, ...]."""
    return torch.stack([distance(samples[:, number], truth) for number in range(samples.shape[1])]).mean(dim=0)


def _mean(values: Tensor) -> MetricValue:
    values = values.double().cpu()
    return MetricValue(values.mean().item(), torch.stack([values, torch.ones_like(values)], dim=1))


def _rmse(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().flatten(1).mean(dim=1).sqrt()


def _cosine(classifier: BlockClassifier, one: Tensor, other: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(classifier.features(one), classifier.features(other))


def _lpips(device: torch.device) -> Distance:
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        network = LearnedPerceptualImagePatchSimilarity("alex", normalize=True).net.to(device)
    except Exception as error:  # of the download, or an optional dependency
        raise ConfigError("task.decode.lpips", True, f"its weights could not be loaded ({first_line(error)})") from None

    @torch.no_grad()
    def distance(one: Tensor, other: Tensor) -> Tensor:
        parts = zip(_coloured(one, LPIPS_SIZE).split(CHUNK), _coloured(other, LPIPS_SIZE).split(CHUNK), strict=True)
        return torch.cat([network(2 * a - 1, 2 * b - 1).flatten() for a, b in parts])

    return distance


def _frechet(features: BlockClassifier | int, device: torch.device) -> Any:
    """Torchmetrics' Fréchet distance in the features of a network, or in so many of Inception's."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(features, normalize=True).to(device)


def _inception(device: torch.device) -> Any:
    try:
        return _frechet(INCEPTION_FEATURES, device)
    except Exception as error:  # of the download, or an optional dependency
        problem = f"its weights could not be loaded ({first_line(error)}); try task.decode.fid=features"
        raise ConfigError("task.decode.fid", "inception", problem) from None


def _frechet_distance(metric: Any, truth: Tensor, pictures: Tensor) -> float:
    metric.reset()
    for real, images in ((True, truth), (False, pictures)):
        for part in images.split(CHUNK):
            own_features = isinstance(metric.inception, BlockClassifier)
            metric.update(part if own_features else _coloured(part, INCEPTION_SIZE), real=real)
    return float(metric.compute())


def _coloured(pictures: Tensor, size: int) -> Tensor:
    """Pictures [n, C, S, S] in 0..1 with three channels, at least of this size."""
    if pictures.shape[1] != 3:
        pictures = pictures[:, :1].expand(-1, 3, -1, -1)
    if pictures.shape[-1] < size:
        pictures = F.interpolate(pictures, (size, size), mode="bilinear", align_corners=False)
    return pictures.clamp(0, 1)
