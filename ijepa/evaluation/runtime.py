"""Where and how frozen encoders run, and what they make of images."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import Tensor

from ijepa import config as schema
from ijepa.distributed import devices
from ijepa.distributed.ranks import ALONE, Ranks
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.models.protocol import blocks_of

Embed = Callable[[Tensor], Tensor]
"""From images [B, C, H, W] in 0..1 to [B, D], or of their patches [B, N, D]."""


@dataclass(frozen=True)
class Runtime:
    """Where and how frozen encoders run.

    Attributes:
        device: theirs.
        bf16: compute in bf16 under autocast; features are float32 either way.
        compiled: compile each block.
        ranks: the processes that share the work.
    """

    device: torch.device
    bf16: bool = False
    compiled: bool = False
    ranks: Ranks = ALONE

    def pooled(self, encoder: PretrainedEncoder, layers: int = 1, mirrored: bool = False) -> "Pooled":
        """Average-pooled patch features of ``encoder``'s last ``layers`` blocks."""
        return Pooled(self._ready(encoder), self, layers, mirrored)

    def patches(self, encoder: PretrainedEncoder, layers: int = 1) -> "Patches":
        """Patch features of ``encoder``'s last ``layers`` blocks."""
        return Patches(self._ready(encoder), self, layers)

    def run(self, network: PretrainedEncoder, images: Tensor, layers: int) -> Tensor:
        """Patch features [B, N, D * layers] in float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            features: Tensor = network(images, last=layers)
        return features.float()

    def _ready(self, encoder: PretrainedEncoder) -> PretrainedEncoder:
        network = encoder.to(self.device)
        if self.compiled:
            for block in blocks_of(network.encoder) or [network.encoder]:
                block.compile()
        return network


@dataclass(frozen=True)
class Patches:
    """Patch features of the last ``layers`` blocks, each through the final norm, concatenated: [B, N, D * layers].

    The last layer's stand last.
    """

    encoder: PretrainedEncoder
    runtime: Runtime
    layers: int

    def __call__(self, images: Tensor) -> Tensor:
        return self.runtime.run(self.encoder, images, self.layers)


@dataclass(frozen=True)
class Pooled:
    """Average-pooled patches of the last ``layers`` blocks, each through the final norm, concatenated: [B, D * layers].

    The paper's evaluations take the last layer or the last four (appendix A.2); the last layer's stand last. With
    ``mirrored``, those of the mirror images.
    """

    encoder: PretrainedEncoder
    runtime: Runtime
    layers: int
    mirrored: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        images = images.flip(-1) if self.mirrored else images
        return self.runtime.run(self.encoder, images, self.layers).mean(dim=1)

    def fingerprint(self) -> str:
        """Of all that the features depend on but the images: weights, description, layers, precision."""
        plain = {"spec": self.encoder.spec.plain(), "layers": self.layers, "bf16": self.runtime.bf16}
        plain |= {"mirrored": True} if self.mirrored else {}
        found = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return found.hexdigest()


def runtime(hardware: schema.Hardware, fabric: Fabric | None) -> Runtime:
    """How evaluate.py runs frozen encoders: in bf16 only where that is asked for by name.

    What tells images apart can be smaller than the rounding of bf16, in the features of an untrained encoder above all.
    """
    where = fabric.device if fabric else torch.device("cuda" if devices.device(hardware) == "gpu" else "cpu")
    ranks = Ranks(fabric.global_rank, fabric.world_size) if fabric else ALONE
    return Runtime(where, hardware.precision.startswith("bf16"), hardware.compile, ranks)
