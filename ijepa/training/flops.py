"""Floating-point operations of a training step, counted from shapes: two per multiply-add of every matrix product."""

from typing import NamedTuple


class TransformerFlops(NamedTuple):
    """The sizes that a transformer's cost depends on."""

    width: int
    depth: int
    mlp_ratio: float

    def forward(self, tokens: int) -> float:
        """Operations of one pass over ``tokens``, without norms, activations and softmax."""
        hidden = int(self.width * self.mlp_ratio)
        linear = 4 * self.width * self.width + 2 * self.width * hidden
        attention = 2 * tokens * self.width
        return 2.0 * self.depth * tokens * (linear + attention)


class PretrainingFlops(NamedTuple):
    """What one image costs in pretraining.

    patches: N of an image.
    patch_values: pixels times channels of a patch.
    encoder, predictor: their sizes.
    output_width: of the predictions.
    target: see `ijepa.models.jepa.JEPA`.
    """

    patches: int
    patch_values: int
    encoder: TransformerFlops
    predictor: TransformerFlops
    output_width: int
    target: str

    def encoder_flops(self) -> float:
        """Operations for one whole image through an encoder, without backward pass."""
        return 2.0 * self.patches * self.patch_values * self.encoder.width + self.encoder.forward(self.patches)

    def forward_flops(self, context: int, blocks: int, patches: int) -> float:
        """Operations for one image through all three networks, without backward pass; see `step_flops`."""
        return self.encoder_flops() + (self.step_flops(context, blocks, patches) - self.encoder_flops()) / 3

    def step_flops(self, context: int, blocks: int, patches: int) -> float:
        """Operations for one image with C, T and K as given.

        The backward pass costs twice the forward pass; the target encoder has none, and neither have the images, so
        the patch embedding's is only that of its weights. Every patch is embedded, also those that are masked.
        """
        embedding = 2.0 * self.patches * self.patch_values * self.encoder.width
        encoder = 2.0 * embedding + 3.0 * self.encoder.forward(context)
        tokens = context + patches
        entering = context * self.encoder.width  # once per image, then shared by the blocks
        leaving = blocks * patches * self.output_width
        projections = 2.0 * self.predictor.width * (entering + leaving)
        predictor = 3.0 * (blocks * self.predictor.forward(tokens) + projections)
        if self.target == "pixels":
            return encoder + predictor
        seen = blocks * self.encoder.forward(patches) if self.target == "input" else self.encoder.forward(self.patches)
        return encoder + predictor + embedding + seen
