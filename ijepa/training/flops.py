"""FLOPs of a training step, counted from shapes: two per multiply-add of every matrix product."""

from typing import NamedTuple


class TransformerFlops(NamedTuple):
    """The sizes that determine a transformer's FLOPs."""

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
    """FLOPs per image in pretraining.

    patches: number of patches N per image.
    patch_values: pixels x channels per patch.
    encoder, predictor: their sizes.
    output_width: width of the predictions.
    target: see `ijepa.models.jepa.JEPA`.
    """

    patches: int
    patch_values: int
    encoder: TransformerFlops
    predictor: TransformerFlops
    output_width: int
    target: str

    def encoder_flops(self) -> float:
        """FLOPs of an encoder's forward pass on one whole image."""
        return 2.0 * self.patches * self.patch_values * self.encoder.width + self.encoder.forward(self.patches)

    def forward_flops(self, context: int, blocks: int, patches: int) -> float:
        """FLOPs of the forward pass of all three networks on one image; see `step_flops`."""
        return self.encoder_flops() + (self.step_flops(context, blocks, patches) - self.encoder_flops()) / 3

    def step_flops(self, context: int, blocks: int, patches: int) -> float:
        """FLOPs of forward and backward pass for one image with C, T and K as given.

        The backward pass costs twice the forward pass. The target encoder has none, and the patch embedding needs
        gradients of its weights only, not of the images. All patches are embedded, also masked ones.
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
