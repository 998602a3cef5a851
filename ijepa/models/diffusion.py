"""Diffusion of small images: what is noised, what a network learns to say about it, and how one samples from it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from ijepa.config.decoder import Prediction, Sampler

TIMES = 1000
"""Noise levels of the cosine schedule (2102.09672); of flow matching, whose levels are continuous, the unit of time."""


LOWEST = -5.1
"""The lowest logarithm of a signal-to-noise ratio from which noise is sampled, as the library advises."""


class Sampling(NamedTuple):
    """How samples are drawn: sampler, its steps, and guidance, see `SketchDecoder.guided`."""

    sampler: Sampler
    steps: int
    guidance: float


class Noised(NamedTuple):
    """Noised images [B, C, S, S], what is to be predicted from them, of the same shape, and their times [B]."""

    images: Tensor
    target: Tensor
    times: Tensor


class Diffusion:
    """Noise schedule, target and samplers.

    Args:
        prediction: what the network predicts. ``epsilon``: the noise (2006.11239); ``v``: a mixture of noise and image
            that is as hard at each noise level (2202.00512); ``flow``: the velocity from image to noise (2210.02747).
    """

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction
        self._schedule: Any = None  # the library has no types
        if prediction != "flow":
            kind = {"epsilon": "epsilon", "v": "v_prediction"}[prediction]
            self._schedule = DDIMScheduler(
                TIMES, beta_schedule="squaredcos_cap_v2", prediction_type=kind, clip_sample=False
            )

    def noised(self, images: Tensor, noise: Tensor, levels: Tensor) -> Noised:
        """Mixes images [B, C, S, S] with standard normal noise of their shape; ``levels`` [B], in [0, 1): how much."""
        if self._schedule is None:
            part = levels.view(-1, 1, 1, 1)
            return Noised((1 - part) * images + part * noise, noise - images, levels * TIMES)
        times = (levels * TIMES).long().clamp(max=TIMES - 1)  # a level just below 1 may be 1 in float32
        target = noise if self.prediction == "epsilon" else self._schedule.get_velocity(images, noise, times)
        return Noised(self._schedule.add_noise(images, noise, times), target, times.float())

    @torch.no_grad()
    def sample(
        self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, sampler: Sampler, steps: int
    ) -> Tensor:
        """Images [B, C, S, S] from noise of that shape; the samplers add none of their own.

        Args:
            predict: the network: from noised images and their times [B] to its prediction.
            noise: standard normal.
            sampler: one of `SAMPLERS` of the configuration for this prediction.
            steps: calls of ``predict``.
        """
        scheduler = self._sampler(sampler)
        if self._schedule is None:
            levels = torch.linspace(1, 1 / steps, steps).tolist()
            scheduler.set_timesteps(sigmas=levels, device=noise.device)
        else:
            scheduler.set_timesteps(steps, device=noise.device)
        images = noise
        for time in scheduler.timesteps:
            predicted = predict(images, time.float().expand(len(noise)))
            images = scheduler.step(predicted, time, images).prev_sample
        return images

    def _sampler(self, sampler: Sampler) -> Any:
        if self._schedule is None:
            return FlowMatchEulerDiscreteScheduler(TIMES)
        # The first order of DPM-Solver++ is DDIM, for any number of steps. From the noise alone, the image is found by
        # a division by nearly 0, which would scale up the network's error: the first levels are left out there.
        lowest = {"lambda_min_clipped": LOWEST} if self.prediction == "epsilon" else {}
        order = 1 if sampler == "ddim" else 2
        return DPMSolverMultistepScheduler.from_config(
            self._schedule.config, timestep_spacing="trailing", solver_order=order, **lowest
        )
