"""Shared by vision transformers: masked patches are dropped before the blocks, extra tokens are added."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PatchTransformer(nn.Module):
    """A `PatchEncoder` made of blocks that map tokens [B, N, D] to tokens [B, N, D]."""

    blocks: nn.ModuleList
    depth: int

    def embed(self, images: Tensor) -> Tensor:
        """The input of the first block: embedded patches plus position embeddings, [B, N, D].

        Args:
            images: [B, C, H, W], normalised.
        """
        raise NotImplementedError

    def extra_tokens(self) -> Tensor | None:
        """Tokens before the patches (class token, registers), [1, R, D]; None if there are none."""
        return None

    def final(self, tokens: Tensor) -> Tensor:
        """Applies the layers after the last block."""
        raise NotImplementedError

    def forward(
        self, images: Tensor, indices: Tensor | None = None, valid: Tensor | None = None, last: int = 1,
        depths: Sequence[int] | None = None,
    ) -> Tensor:  # fmt: skip
        """Features of all patches, or of those at ``indices``, which then attend only to each other and extra tokens.

        Args:
            images: [B, C, H, W], normalised.
            indices: [B, N'] or [B, T, K], patch indices in row-major order.
            valid: [B, N'], False for padding, which is masked in attention.
            last: number of last blocks whose outputs are concatenated, each through the final norm.
            depths: instead of ``last``: the outputs after this many blocks, ascending, as they are (0: embedded
                patches), but the last block's through the final norm. Blocks after the deepest are not computed.

        Returns:
            [B, N, D * L] for L = ``last`` or the number of depths; with indices [B, N', D * L] or [B, T, K, D * L].
        """
        tokens = self.embed(images)  # [B, N, D]
        if depths is None:
            outputs = [(depth, True) for depth in range(len(self.blocks) - last + 1, len(self.blocks) + 1)]
        else:
            outputs = [(depth, depth == len(self.blocks)) for depth in depths]
        if indices is None:
            return self._blocks(tokens, None, outputs)
        tokens = gather(tokens, indices)
        mask = None if valid is None else valid[:, None, None, :]  # [B, 1, 1, N']
        return self._blocks(tokens.flatten(0, -3), mask, outputs).unflatten(0, indices.shape[:-1])

    def with_extra_tokens(self, tokens: Tensor) -> Tensor:
        """The extra tokens followed by ``tokens`` [B, N, D]: [B, R + N, D]."""
        extra = self.extra_tokens()
        if extra is None:
            return tokens
        return torch.cat([extra.to(tokens.dtype).expand(len(tokens), -1, -1), tokens], dim=1)

    def _blocks(self, tokens: Tensor, mask: Tensor | None, outputs: list[tuple[int, bool]]) -> Tensor:
        """``outputs``: after how many blocks, ascending, and whether through the final norm; they are concatenated."""
        patches = tokens.shape[1]
        tokens = self.with_extra_tokens(tokens)
        extra = tokens.shape[1] - patches
        if mask is not None and extra:
            mask = torch.cat([mask.new_ones(*mask.shape[:-1], extra), mask], dim=-1)
        blocks, done, found = list(self.blocks), 0, []
        for depth, normed in outputs:
            for block in blocks[done:depth]:
                tokens = block(tokens, attn_mask=mask)
            done = depth
            of_patches = tokens[:, extra:] if extra else tokens
            found.append(self.final(of_patches) if normed else of_patches)
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)


def write_out_attention(network: nn.Module) -> None:
    """Makes all attention in ``network`` products of matrices instead of torch's fused function.

    The fused function's backward pass on a CPU in bf16 takes several times as long; `FlopCounterMode` cannot count it.
    """
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]


def gather(tokens: Tensor, indices: Tensor) -> Tensor:
    """Selects the tokens [B, N, D] at ``indices`` [B, ...]: [B, ..., D]."""
    flat = indices.flatten(1)[:, :, None].expand(-1, -1, tokens.shape[-1])
    return tokens.gather(1, flat).unflatten(1, indices.shape[1:])


def transformer_flops(tokens: int, width: int, depth: int, mlp_ratio: float) -> float:
    """FLOPs of a transformer's blocks in one pass over ``tokens``, two per multiply-add.

    Norms, activations and softmax are not counted.
    """
    hidden = int(width * mlp_ratio)
    linear = 4 * width * width + 2 * width * hidden
    attention = 2 * tokens * width
    return 2.0 * depth * tokens * (linear + attention)
