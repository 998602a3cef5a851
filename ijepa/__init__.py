"""I-JEPA (Assran et al., CVPR 2023): self-supervised pretraining of vision transformers.

>>> import ijepa
>>> run = ijepa.pretrain("IMAGES", model="vit_small")  # a folder of images; run.encoder, run.evaluate("knn")
>>> encoder = ijepa.load_encoder("runs/digits-001")  # or a checkpoint, encoder.safetensors, Meta's .pth.tar
>>> features = encoder(encoder.transform(image)[None])  # [1, N, D]; images in 0..1
>>> classifier = ijepa.load_classifier("runs/digits-001/evaluation/logistic")  # after evaluate.py task=logistic
>>> classifier.predict(["a.png"])  # names and probabilities

With your own Dataset and Trainer: docs/library.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ijepa.api.functions import Evaluation, Run, pretrain
    from ijepa.api.notebook import PretrainingModule, build_datamodule, build_module, compose_config, save_encoder
    from ijepa.data.datamodule import DataModule
    from ijepa.interop.classifier_files import load_classifier
    from ijepa.interop.dense import load_dense
    from ijepa.interop.loading import load_encoder

__version__ = "0.1.0"
__all__ = [
    "DataModule",
    "Evaluation",
    "PretrainingModule",
    "Run",
    "build_datamodule",
    "build_module",
    "compose_config",
    "load_classifier",
    "load_dense",
    "load_encoder",
    "pretrain",
    "save_encoder",
]
_HOMES = {
    "DataModule": "ijepa.data.datamodule",
    "Evaluation": "ijepa.api.functions",
    "Run": "ijepa.api.functions",
    "load_classifier": "ijepa.interop.classifier_files",
    "load_dense": "ijepa.interop.dense",
    "load_encoder": "ijepa.interop.loading",
    "pretrain": "ijepa.api.functions",
}


def __getattr__(name: str) -> Any:
    """Imports lazily, because torch takes seconds to import."""
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "ijepa.api.notebook")), name)
    raise AttributeError(f"module 'ijepa' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
