"""I-JEPA (Assran et al., CVPR 2023): self-supervised pretraining of vision transformers.

>>> import ijepa
>>> encoder = ijepa.load_encoder("runs/digits-001")  # or a checkpoint, encoder.safetensors, Meta's .pth.tar
>>> features = encoder(encoder.transform(image)[None])  # [1, N, D], from values in 0..1
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load_encoder"]


def __getattr__(name: str) -> Any:
    """Imports torch only when it is needed."""
    if name == "load_encoder":
        from ijepa.interop.loading import load_encoder

        return load_encoder
    raise AttributeError(f"module 'ijepa' has no attribute {name!r}")
