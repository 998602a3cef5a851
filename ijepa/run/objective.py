"""Builds the objective from a configuration, including the user's own terms."""

from torch import nn

from ijepa import config as schema
from ijepa.config.custom import instantiate
from ijepa.distributed import sharding
from ijepa.models.pretrained import Spec
from ijepa.training.objective import RESERVED, Objective, latent_objective
from ijepa.util.errors import ConfigError


def build_objective(config: schema.TrainConfig, encoder: Spec) -> Objective:
    """The objective of a configuration.

    Args:
        config: the run's configuration.
        encoder: spec of the encoder, for the width and number of patches that terms may take.

    Raises:
        UserError: when a term of the user's cannot be built or does not fit the configuration.
    """
    extra_terms, patches = {}, encoder.grid[0] * encoder.grid[1]
    for name, section in config.objective.terms.items():
        key = f"objective.terms.{name}"
        if name in RESERVED:
            raise ConfigError(key, section.target, "the name is taken; choose another")
        term = instantiate(key, section, nn.Module, width=encoder.width, num_patches=patches)
        if getattr(term, "needs_whole_batch", False) and config.hardware.accumulation > 1:
            problem = f"{key} compares the images of a batch; use hardware.accumulation=1"
            raise ConfigError("hardware.accumulation", config.hardware.accumulation, problem)
        extra_terms[name] = term, section.weight
    return latent_objective(
        config.objective.distance,
        config.objective.variance_weight,
        config.objective.covariance_weight,
        config.objective.regularize,
        patches,
        sharding.sum_over_ranks,
        extra_terms,
        config.objective.distance_weight,
        pixels_beside_features(config.objective, encoder),
        config.objective.pixel_weight,
    )


def pixels_beside_features(objective: schema.Objective, encoder: Spec) -> int:
    """The number of a patch's pixel values if they are predicted beside the target encoder's output, else 0."""
    return encoder.patch_size**2 * encoder.channels if objective.pixel_weight else 0
