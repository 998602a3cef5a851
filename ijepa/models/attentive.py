"""The attentive probe: a learnt query attends to patch features, followed by an MLP and a linear classifier."""

from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

from ijepa.models.encoder import LayerNorm


class AttentiveProbe(nn.Module):
    """An attentive probe: patch features [B, N, D] to logits [B, K]."""

    def __init__(self, width: int, heads: int, classes: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.pool = AttentionPoolLatent(width, num_heads=heads, norm_layer=LayerNorm)
        self.head = nn.Linear(width, classes)

    def forward(self, patches: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.norm(patches)))
        return logits
