"""Shared by vision transformers: masked patches are dropped before the blocks, extra tokens are added."""

import torch
from torch import Tensor, nn


class PatchTransformer(nn.Module):
    """A `PatchEncoder` made of blocks that map tokens [B, N, D] to tokens [B, N, D]."""

    blocks: nn.ModuleList

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
        self, images: Tensor, indices: Tensor | None = None, valid: Tensor | None = None, last: int = 1
    ) -> Tensor:
        """Features of all patches, or of those at ``indices``, which then attend only to each other and extra tokens.

        Args:
            images: [B, C, H, W], normalised.
            indices: [B, N'] or [B, T, K], patch indices in row-major order.
            valid: [B, N'], False for padding, which is masked in attention.
            last: number of last blocks whose outputs are concatenated, each through the final norm.

        Returns:
            [B, N, D * last]; with indices [B, N', D * last] or [B, T, K, D * last].
        """
        tokens = self.embed(images)  # [B, N, D]
        if indices is None:
            return self._blocks(tokens, None, last)
        tokens = gather(tokens, indices)
        mask = None if valid is None else valid[:, None, None, :]  # [B, 1, 1, N']
        return self._blocks(tokens.flatten(0, -3), mask, last).unflatten(0, indices.shape[:-1])

    def with_extra_tokens(self, tokens: Tensor) -> Tensor:
        """The extra tokens followed by ``tokens`` [B, N, D]: [B, R + N, D]."""
        extra = self.extra_tokens()
        if extra is None:
            return tokens
        return torch.cat([extra.to(tokens.dtype).expand(len(tokens), -1, -1), tokens], dim=1)

    def _blocks(self, tokens: Tensor, mask: Tensor | None, last: int) -> Tensor:
        patches = tokens.shape[1]
        tokens = self.with_extra_tokens(tokens)
        extra = tokens.shape[1] - patches
        if mask is not None and extra:
            mask = torch.cat([mask.new_ones(*mask.shape[:-1], extra), mask], dim=-1)
        outputs = []
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, attn_mask=mask)
            if i >= len(self.blocks) - last:
                outputs.append(self.final(tokens[:, extra:] if extra else tokens))
        return outputs[0] if last == 1 else torch.cat(outputs, dim=-1)


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
