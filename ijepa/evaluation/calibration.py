"""Calibration of a classifier's probabilities by a temperature (Guo et al., 1706.04599)."""

import math
from typing import Any

from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

MIN_IMAGES = 50
"""Images that a temperature is fitted to, at least."""
LOG_RANGE = (-3.0, 4.0)
"""Of the temperature's natural logarithm."""
BINS = 15
"""Of the expected calibration error, as in the paper."""


def temperature(logits: Tensor, labels: Tensor) -> float | None:
    """The temperature that explains the labels best; None with fewer than `MIN_IMAGES` images.

    Its logarithm has a normal prior of standard deviation 1, worth next to nothing with hundreds of images: if few
    images are all right, the likelihood alone would choose probabilities of 1.

    Args:
        logits: [n, K], of images to which the classifier was not fitted.
        labels: [n] class indices.
    """
    if len(labels) < MIN_IMAGES:
        return None
    values = logits.double()

    def loss(logarithm: float) -> float:
        return F.cross_entropy(values / math.exp(logarithm), labels).item() + logarithm**2 / 2 / len(labels)

    return math.exp(minimize_scalar(loss, bounds=LOG_RANGE, method="bounded").x)


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Expected calibration error: mean distance between confidence and accuracy, over `BINS` bins of confidence.

    Images of a class without a logit, because no training image has it, count as wrong.
    """
    classes = max(logits.shape[1], int(labels.max()) + 1, 2)
    probabilities = F.pad(logits, (0, classes - logits.shape[1]), value=-math.inf).softmax(dim=1)
    error: Tensor = multiclass_calibration_error(probabilities, labels, classes, BINS)
    return float(error)


def details(logits: Tensor, labels: Tensor, chosen: float | None) -> dict[str, Any]:
    """For metrics.json: the temperature ``chosen``, and the calibration error of ``logits`` before and after.

    {} if there is no temperature.
    """
    if chosen is None:
        return {}
    before, after = (calibration_error(values, labels) for values in (logits, logits / chosen))
    return {"temperature": chosen, "ece": before, "ece_calibrated": after}
