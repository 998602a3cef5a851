"""I-JEPA: context encoder, predictor and target encoder (paper, section 3)."""

import copy
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ijepa.masking import Masks
from ijepa.models import ema
from ijepa.models.predictor import Predictor
from ijepa.models.protocol import PatchEncoder
from ijepa.models.targets import TargetStatistics, normalize_targets, pixel_targets
from ijepa.models.teacher import Teacher
from ijepa.models.transformer import gather

Target = Literal["output", "input", "pixels"]


class Prediction(NamedTuple):
    """The inputs of the objective: predictions and targets [B, T, K, D]; context [B, C, D]."""

    predictions: Tensor
    targets: Tensor
    context: Tensor


class JEPA(nn.Module):
    """The three networks; the target encoder is an EMA (momentum) copy of the context encoder.

    Args:
        context_encoder: trained by gradient descent.
        predictor: trained by gradient descent.
        target: what is predicted. ``output`` (paper): the target encoder encodes the whole image, and its output is
            selected at the target patches; ``input`` (paper, table 11): it encodes each target block alone; ``pixels``
            (paper, table 7): normalised pixels.
        normalize: layer norm on the target encoder's output, without affine parameters.
        depths: the outputs of these blocks of the target encoder are predicted together, see `PatchTransformer`; None:
            the last block's.
        standardize: see `TargetStatistics`; only for ``output``.
        renormalize: layer norm on the standardised targets, too, so that every patch counts alike.
        pixels: number of a patch's pixel values, which are predicted beside the target encoder's output and are the
            last dimensions of predictions and targets; 0: they are not.
        teacher: its features are predicted instead of the target encoder's, which only averages the weights then.
    """

    def __init__(
        self,
        context_encoder: PatchEncoder,
        predictor: Predictor,
        target: Target = "output",
        normalize: bool = True,
        depths: tuple[int, ...] | None = None,
        standardize: bool = False,
        renormalize: bool = False,
        pixels: int = 0,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        assert isinstance(context_encoder, nn.Module)
        self.context_encoder = context_encoder
        self.predictor = predictor
        self.target_encoder = copy.deepcopy(context_encoder).requires_grad_(False)
        self.teacher = teacher
        self.target = target
        self.normalize = normalize
        self.depths = depths
        self.renormalize = renormalize
        self.pixels = pixels
        self.statistics: TargetStatistics | None = None
        if standardize:
            rows, columns = predictor.grid
            self.statistics = TargetStatistics(rows * columns, predictor.output_width - pixels)

    def forward(self, images: Tensor, masks: Masks) -> Prediction:
        """Predictions and targets for ``images`` [B, C, H, W], normalised."""
        targets = self.targets(images, masks.targets)  # [B, T, K, D]
        context = self.context_encoder(images, masks.context, masks.valid)  # [B, C, D]
        predictions = self.predictor(context, masks.context, masks.targets, masks.valid)  # [B, T, K, D]
        return Prediction(predictions, targets, context)

    @torch.no_grad()
    def targets(self, images: Tensor, indices: Tensor) -> Tensor:
        """The targets at ``indices`` [B, T, K]: [B, T, K, D], without gradient."""
        if self.target == "pixels":
            return self._pixels(images, indices)
        options = {} if self.depths is None else {"depths": self.depths}
        encoder = self.target_encoder if self.teacher is None else self.teacher
        if self.target == "input":
            return self._normalized(encoder(images, indices, **options))
        found = self.select_targets(encoder(images, **options), indices)
        return torch.cat([found, self._pixels(images, indices)], dim=-1) if self.pixels else found

    @torch.no_grad()
    def select_targets(self, features: Tensor, indices: Tensor) -> Tensor:
        """The targets at ``indices`` [B, T, K], from the target encoder's features of whole images [B, N, D]."""
        if self.statistics is None:
            return self._normalized(gather(features, indices))
        found = gather(self.statistics(self._normalized(features)), indices)
        return normalize_targets(found, self._levels) if self.renormalize else found

    def _pixels(self, images: Tensor, indices: Tensor) -> Tensor:
        rows, _ = self.context_encoder.grid_of(*images.shape[-2:])
        return gather(pixel_targets(images, images.shape[-2] // rows), indices)

    def _normalized(self, features: Tensor) -> Tensor:
        return normalize_targets(features, self._levels) if self.normalize else features

    @property
    def _levels(self) -> int:
        return len(self.depths or (0,))

    def update_target_encoder(self, momentum: float, skipped: Tensor | None = None) -> None:
        """Updates the target encoder from the context encoder, see `ijepa.models.ema.update`."""
        assert isinstance(self.context_encoder, nn.Module)
        ema.update(self.target_encoder, self.context_encoder, momentum, skipped)
