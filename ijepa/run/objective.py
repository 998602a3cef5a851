"""From a configuration to the objective, with terms of the user's own."""

from torch import nn

from ijepa import config as schema
from ijepa.config.custom import instantiate
from ijepa.distributed import sharding
from ijepa.models.pretrained import Spec
from ijepa.training.objective import RESERVED, Objective, latent_objective
from ijepa.util.errors import ConfigError


def build_objective(config: schema.TrainConfig, encoder: Spec) -> Objective:
    """What is minimised, with the user's own terms.

    Raises:
        UserError: when one of these cannot be built.
    """
    further, patches = {}, encoder.grid[0] * encoder.grid[1]
    for name, section in config.objective.terms.items():
        key = f"objective.terms.{name}"
        if name in RESERVED:
            raise ConfigError(key, section.target, "the name is taken; choose another")
        term = instantiate(key, section, nn.Module, width=encoder.width, num_patches=patches)
        if getattr(term, "needs_whole_batch", False) and config.hardware.accumulation > 1:
            problem = f"{key} compares the images of a batch; use hardware.accumulation=1"
            raise ConfigError("hardware.accumulation", config.hardware.accumulation, problem)
        further[name] = term, section.weight
    return latent_objective(
        config.objective.distance,
        config.objective.variance_weight,
        config.objective.covariance_weight,
        config.objective.regularize,
        patches,
        sharding.total,
        further,
    )
