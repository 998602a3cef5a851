"""The sketch decoder: a diffusion transformer from noise to the pixels of a representation (RCDM, 2112.09164)."""

import math
from typing import Any, Literal

import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from ijepa.models.conditions import Representation

Shown = Literal["block", "image"]
OCTAVES = 6
"""Frequencies of a position's sine and cosine features: from half a turn per picture, each twice the one before."""


class SketchDecoder(nn.Module):
    """Predicts the noise of noised pictures from a representation and the block's position in its image.

    A diffusion transformer (DiT, 2212.09748, as in PixArt, 2310.00426): its blocks attend to the patches of the noised
    picture, and to a sequence of the block's position and the tokens of the representation, each with its position.

    Args:
        channels: of the pictures.
        size: S, height and width of the pictures.
        condition_width: D, of the representation's tokens.
        shown: ``block``: the pictures are of the block alone; ``image``: of the whole image, and a further channel of
            the input says where the block is.
        patch_size: of the pictures' patches, in pixels.
        width: of the transformer.
        depth: its blocks.
        heads: attention heads of each block.

    Attributes:
        arguments: of this constructor, by name.
    """

    def __init__(
        self, channels: int, size: int, condition_width: int, shown: Shown, patch_size: int, width: int, depth: int,
        heads: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.arguments: dict[str, Any] = {
            "channels": channels, "size": size, "condition_width": condition_width, "shown": shown,
            "patch_size": patch_size, "width": width, "depth": depth, "heads": heads,
        }  # fmt: skip
        self.channels, self.size, self.shown = channels, size, shown
        transformer: Any = PixArtTransformer2DModel(  # the library has no types
            sample_size=size, patch_size=patch_size, in_channels=channels + (shown == "image"), out_channels=channels,
            num_attention_heads=heads, attention_head_dim=width // heads, num_layers=depth, cross_attention_dim=width,
            use_additional_conditions=False,
        )  # fmt: skip
        self.transformer: nn.Module = transformer
        self.representation = nn.Sequential(
            nn.LayerNorm(condition_width, elementwise_affine=False), nn.Linear(condition_width, width), nn.SiLU(),
            nn.Linear(width, width),
        )  # fmt: skip
        self.position = _position_mlp(width)
        self.block_position = _position_mlp(width)
        self.no_representation = nn.Parameter(torch.zeros(width))
        # Every block begins as the identity, and the first predictions are zeros (DiT, section 3.2).
        outputs = [transformer.proj_out]
        for block in transformer.transformer_blocks:
            outputs += [block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]]
        for layer in outputs:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer's blocks."""
        found = self.transformer.transformer_blocks
        assert isinstance(found, nn.ModuleList)
        return found

    def forward(
        self, noised: Tensor, times: Tensor, representation: Representation, withheld: Tensor | None = None
    ) -> Tensor:
        """The prediction [n, C, S, S].

        Args:
            noised: [n, C, S, S].
            times: [n], the noise levels.
            representation: of n blocks.
            withheld: bool [n], where the representation is withheld (classifier-free guidance, 2207.12598); None:
                nowhere.
        """
        tokens, positions, blocks = representation
        known = self.representation(tokens)
        known = known + self.position(_waves(self._in_picture(positions, blocks)))
        if withheld is not None:
            known = torch.where(withheld[:, None, None], self.no_representation.to(known.dtype), known)
        condition = torch.cat([self.block_position(_waves(blocks))[:, None], known], dim=1)
        if self.shown == "image":
            noised = torch.cat([noised, self._inside(blocks).to(noised.dtype)], dim=1)
        predicted: Tensor = self.transformer(noised, encoder_hidden_states=condition, timestep=times).sample
        return predicted

    def _in_picture(self, positions: Tensor, blocks: Tensor) -> Tensor:
        """Boxes [n, T, 4] in parts of the picture's sides, from parts of the image's."""
        if self.shown == "image":
            return positions
        corner, opposite = blocks[:, None, :2], blocks[:, None, 2:]
        return (positions - torch.cat([corner, corner], dim=2)) / (opposite - corner).repeat(1, 1, 2)

    def _inside(self, blocks: Tensor) -> Tensor:
        """1 where a pixel's centre is in the box, else 0: [n, 1, S, S]."""
        centres = (torch.arange(self.size, device=blocks.device) + 0.5) / self.size
        top, left, bottom, right = blocks[:, :, None].unbind(dim=1)  # [n, 1] each
        rows = (centres >= top) & (centres < bottom)  # [n, S]
        columns = (centres >= left) & (centres < right)
        return (rows[:, None, :, None] & columns[:, None, None, :]).float()

    def guided(self, noised: Tensor, times: Tensor, representation: Representation, guidance: float) -> Tensor:
        """As `forward`, moved away from what is predicted without a representation by the factor ``guidance``."""
        if guidance == 1:
            return self(noised, times, representation)
        without = torch.ones(len(noised), dtype=torch.bool, device=noised.device)
        if guidance == 0:
            return self(noised, times, representation, without)
        doubled = Representation(*(torch.cat([tensor, tensor]) for tensor in representation))
        both = self(torch.cat([noised, noised]), torch.cat([times, times]), doubled, torch.cat([~without, without]))
        conditioned, plain = both.chunk(2)
        return plain + guidance * (conditioned - plain)


def _position_mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4 * 2 * OCTAVES, width), nn.SiLU(), nn.Linear(width, width))


def _waves(boxes: Tensor) -> Tensor:
    """Sines and cosines of boxes [..., 4]: [..., 4 * 2 * OCTAVES]."""
    angles = boxes.float()[..., None] * (math.pi * 2.0 ** torch.arange(OCTAVES, device=boxes.device))
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def pictures(images: Tensor, blocks: Tensor, size: int, shown: Shown, oversampling: int = 1) -> Tensor:
    """What a decoder should draw: ``images`` [n, C, H, W], or their part in ``blocks`` [n, 4], as [n, C, size, size].

    Args:
        images: [n, C, H, W].
        blocks: [n, 4], top, left, bottom and right in parts of the image's sides.
        size: of the pictures.
        shown: see `SketchDecoder`.
        oversampling: each pixel of a block is the average of so many squared, as a block that shrinks needs.
    """
    if shown == "image":
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    finer = size * oversampling
    centres = (torch.arange(finer, device=images.device, dtype=images.dtype) + 0.5) / finer
    top, left, bottom, right = (2 * edge[:, None] - 1 for edge in blocks.unbind(dim=1))  # grid_sample: from -1 to 1
    rows, columns = top + (bottom - top) * centres, left + (right - left) * centres  # [n, finer] each
    grid = torch.stack(
        [columns[:, None, :].expand(-1, finer, -1), rows[:, :, None].expand(-1, -1, finer)], dim=-1
    )  # [n, finer, finer, 2]
    found = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(found, oversampling) if oversampling > 1 else found
