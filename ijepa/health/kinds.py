"""Health checks of encoders and of decoders: what they measure, what that costs, and how it is judged."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ijepa.health.check import Heldout, health_check
from ijepa.health.decoder import decoder_check, diagnose_decoder
from ijepa.health.pace import CROP_EVERY, CROPS_PER_IMAGE, PREDICT_EVERY
from ijepa.health.specs import DECODER_GROUPS, ENCODER_GROUPS
from ijepa.health.verdict import HealthCheck, Verdict, diagnose
from ijepa.masking import Masks
from ijepa.training.protocol import DecoderMonitor, Monitor
from ijepa.util.metric_spec import MetricSpec


class Kind(NamedTuple):
    """A kind of health check.

    Attributes:
        check: all measures of a monitor on held-out images, by their names in metrics.csv after ``health/``.
        diagnose: the verdict on the last of some checks, with the number of warm-up steps.
        flops: of a check with a monitor, the masks of one image, and so many images.
    """

    check: Callable[[Any, Heldout], HealthCheck]
    diagnose: Callable[[Sequence[HealthCheck], int], Verdict]
    flops: Callable[[Any, Masks | None, int], float]


def _encoder_flops(monitor: Monitor, masks: Masks | None, images: int) -> float:
    image, encoded = monitor.flops(masks), images + images // CROP_EVERY * CROPS_PER_IMAGE
    return encoded * image.features + images // PREDICT_EVERY * image.predictions


def _decoder_flops(monitor: DecoderMonitor, masks: Masks | None, images: int) -> float:
    assert masks is not None
    return images // PREDICT_EVERY * monitor.flops(masks)


ENCODER = Kind(health_check, diagnose, _encoder_flops)
DECODER = Kind(decoder_check, diagnose_decoder, _decoder_flops)


def kind_of(monitor: Monitor | DecoderMonitor) -> Kind:
    """The kind that measures ``monitor``."""
    return DECODER if isinstance(monitor, DecoderMonitor) else ENCODER


def measures(decoder: bool) -> list[MetricSpec]:
    """Of a run that trains an encoder, or a decoder."""
    return [spec for group in (DECODER_GROUPS if decoder else ENCODER_GROUPS).values() for spec in group]
