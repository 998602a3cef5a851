"""How frozen encoders run, and the features that they compute."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import Tensor

from ijepa import config as schema
from ijepa.distributed import devices
from ijepa.distributed.ranks import SINGLE_PROCESS, Ranks
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.models.protocol import blocks_of

CPU_CACHE_BYTES = 2**22
"""A CPU is fastest with so many images at once that the hidden values of a block's MLP fit into its cache."""
Embed = Callable[[Tensor], Tensor]
"""From images [B, C, H, W] in 0..1 to features [B, D], or patch features [B, N, D]."""


@dataclass(frozen=True)
class Runtime:
    """How frozen encoders run.

    Attributes:
        device: where they run.
        bf16: compute in bf16 under autocast; features are float32 either way.
        compiled: compile each block.
        ranks: the processes that share the work.
    """

    device: torch.device
    bf16: bool = False
    compiled: bool = False
    ranks: Ranks = SINGLE_PROCESS

    def pooled(self, encoder: PretrainedEncoder, layers: int = 1, mirrored: bool = False) -> "PooledFeatures":
        """Average-pooled patch features of ``encoder``'s last ``layers`` blocks."""
        return PooledFeatures(self._prepare(encoder), self, layers, mirrored)

    def patches(self, encoder: PretrainedEncoder, layers: int = 1) -> "PatchFeatures":
        """Patch features of ``encoder``'s last ``layers`` blocks."""
        return PatchFeatures(self._prepare(encoder), self, layers)

    def run(self, network: PretrainedEncoder, images: Tensor, layers: int) -> Tensor:
        """Patch features [B, N, D * layers] of images [B, C, H, W], float32."""
        parts = images.split(_chunk_size(network, images)) if self.device.type == "cpu" else (images,)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            features = [network(part, last=layers).float() for part in parts]
        return features[0] if len(features) == 1 else torch.cat(features)

    def _prepare(self, encoder: PretrainedEncoder) -> PretrainedEncoder:
        network = encoder.to(self.device)
        if self.compiled:
            for block in blocks_of(network.encoder) or [network.encoder]:
                block.compile()
        return network


@dataclass(frozen=True)
class PatchFeatures:
    """Patch features of the last ``layers`` blocks, each through the final norm, concatenated: [B, N, D * layers].

    The last block comes last.
    """

    encoder: PretrainedEncoder
    runtime: Runtime
    layers: int

    def __call__(self, images: Tensor) -> Tensor:
        return self.runtime.run(self.encoder, images, self.layers)


@dataclass(frozen=True)
class PooledFeatures:
    """Average-pooled patches of the last ``layers`` blocks, each through the final norm, concatenated: [B, D * layers].

    The last block comes last. The paper's evaluations take the last block or the last four (appendix A.2). With
    ``mirrored``, images are mirrored first.
    """

    encoder: PretrainedEncoder
    runtime: Runtime
    layers: int
    mirrored: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        images = images.flip(-1) if self.mirrored else images
        return self.runtime.run(self.encoder, images, self.layers).mean(dim=1)

    def fingerprint(self) -> str:
        """SHA-256 of everything but the images that determines the features: weights, spec, layers, precision."""
        plain = {"spec": self.encoder.spec.plain(), "layers": self.layers, "bf16": self.runtime.bf16}
        plain |= {"mirrored": True} if self.mirrored else {}
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()


def _chunk_size(network: PretrainedEncoder, images: Tensor) -> int:
    spec = network.spec
    patches = images.shape[-2] * images.shape[-1] / spec.patch_size**2
    return max(int(CPU_CACHE_BYTES / (4 * patches * spec.mlp_ratio * spec.width)), 1)


def build_runtime(hardware: schema.Hardware, fabric: Fabric | None) -> Runtime:
    """How evaluate.py runs frozen encoders: in bf16 only if ``hardware.precision`` names it.

    The differences between images can be smaller than bf16's rounding error, above all for an untrained encoder.
    """
    device = fabric.device if fabric else torch.device("cuda" if devices.device(hardware) == "gpu" else "cpu")
    ranks = Ranks(fabric.global_rank, fabric.world_size) if fabric else SINGLE_PROCESS
    return Runtime(device, hardware.precision.startswith("bf16"), bool(hardware.compile), ranks)
