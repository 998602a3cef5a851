"""Training steps of other implementations' networks, sized as ours, on the same images and masks."""

import copy
import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ijepa.config import TrainConfig
from ijepa.masking import Masks

Autocast = Callable[[], AbstractContextManager[Any]]


def layer_norm(width: int) -> nn.LayerNorm:
    """As in the reference implementation's vision transformers."""
    return nn.LayerNorm(width, eps=1e-6)


class Peer(ABC):
    """A step as in the reference implementation: smooth L1 to the layer-normed output, AdamW, EMA by parameter.

    Args:
        encoder: the context encoder.
        predictor: gives [T * B, K, D].
        autocast: a new context for each step.
        device: of the networks.
    """

    def __init__(self, encoder: nn.Module, predictor: nn.Module, autocast: Autocast, device: torch.device) -> None:
        self.encoder, self.predictor = encoder.to(device), predictor.to(device)
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        trained = [*self.encoder.parameters(), *self.predictor.parameters()]
        self.optimizer = torch.optim.AdamW([p for p in trained if p.requires_grad], lr=1e-4)
        self.autocast = autocast

    @abstractmethod
    def encode(self, encoder: nn.Module, images: Tensor, context: Tensor | None) -> Tensor:
        """Features of the patches ``context`` [B, C], or of all."""

    @abstractmethod
    def predict(self, features: Tensor, context: Tensor, targets: list[Tensor]) -> Tensor:
        """Predictions [T * B, K, D] of T target blocks [B, K]."""

    def step(self, images: Tensor, masks: Masks) -> None:
        targets = list(masks.targets.unbind(dim=1))
        with self.autocast():
            with torch.no_grad():
                wanted = self.encode(self.target_encoder, images, None)
                wanted = F.layer_norm(wanted, wanted.shape[-1:])
                wanted = torch.cat([wanted.gather(1, t[..., None].expand(-1, -1, wanted.shape[-1])) for t in targets])
            found = self.predict(self.encode(self.encoder, images, masks.context), masks.context, targets)
            loss = F.smooth_l1_loss(found, wanted)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for now, average in zip(self.encoder.parameters(), self.target_encoder.parameters(), strict=True):
                average.data.mul_(0.996).add_(0.004 * now.detach().data)


class Reference(Peer):
    """The networks in ``folder``, a checkout of facebookresearch/ijepa."""

    def __init__(
        self, folder: Path, config: TrainConfig, encoder: Any, autocast: Autocast, device: torch.device
    ) -> None:
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        networks: Any = importlib.import_module("src.models.vision_transformer")
        theirs = networks.VisionTransformer(
            img_size=[config.data.image_size[0]], patch_size=encoder.patch_size, embed_dim=encoder.width,
            depth=encoder.depth, num_heads=encoder.heads, mlp_ratio=4, qkv_bias=True, norm_layer=layer_norm,
        )  # fmt: skip
        predictor = networks.vit_predictor(
            num_patches=theirs.patch_embed.num_patches, embed_dim=encoder.width, num_heads=encoder.heads,
            predictor_embed_dim=config.predictor.width, depth=config.predictor.depth,
        )  # fmt: skip
        super().__init__(theirs, predictor, autocast, device)

    def encode(self, encoder: nn.Module, images: Tensor, context: Tensor | None) -> Tensor:
        features: Tensor = encoder(images) if context is None else encoder(images, [context])
        return features

    def predict(self, features: Tensor, context: Tensor, targets: list[Tensor]) -> Tensor:
        found: Tensor = self.predictor(features, [context], targets)
        return found


class Lightly(Peer):
    """lightly's modules for I-JEPA, around timm's vision transformer."""

    def __init__(self, config: TrainConfig, encoder: Any, autocast: Autocast, device: torch.device) -> None:
        modules: Any = importlib.import_module("lightly.models.modules")
        timm: Any = importlib.import_module("timm.models.vision_transformer")
        network = timm.VisionTransformer(
            img_size=config.data.image_size[0], patch_size=encoder.patch_size, embed_dim=encoder.width,
            depth=encoder.depth, num_heads=encoder.heads, class_token=False, global_pool="", num_classes=0,
        )  # fmt: skip
        predictor = modules.IJEPAPredictorTIMM(
            num_patches=network.patch_embed.num_patches, depth=config.predictor.depth, mlp_dim=encoder.width,
            predictor_embed_dim=config.predictor.width, num_heads=encoder.heads,
        )  # fmt: skip
        super().__init__(modules.MaskedVisionTransformerTIMM(vit=network), predictor, autocast, device)

    def encode(self, encoder: Any, images: Tensor, context: Tensor | None) -> Tensor:
        features: Tensor = encoder.encode(images, idx_keep=context)
        return features

    def predict(self, features: Tensor, context: Tensor, targets: list[Tensor]) -> Tensor:
        found: Tensor = self.predictor(features, context, targets)
        return found
