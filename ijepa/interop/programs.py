"""Export of encoders to ONNX and torch.export: from images in 0..1 to patch features, for any batch size.

Each exported program is compared with the encoder before it is saved.
"""

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ijepa.models.pretrained import PretrainedEncoder
from ijepa.util.files import replacing

IMAGES, FEATURES = "images", "features"
TOLERANCE = 1e-4
"""Maximum difference between a program's features and the encoder's, which are of order one."""
TRACED, TRIED = 2, 3
"""Batch sizes for tracing and for testing."""
LARGEST = 2**31 - 2**20
"""Maximum bytes of weights inside an ONNX file; larger weights are saved in a second file."""


class ProgramError(ValueError):
    """The program cannot be exported, or computes other features."""


def needs(kind: str) -> str | None:
    """The package that a format needs and that is not installed, or None."""
    if kind != "onnx":
        return None
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError:
            return package
    return None


def write_onnx(path: Path, encoder: PretrainedEncoder) -> list[Path]:
    """Writes ``encoder`` as ONNX.

    Returns:
        The paths written: ``path`` and, for large weights, ``path`` with ``.data`` appended.

    Raises:
        ProgramError: if onnxruntime computes other features than the encoder.
    """
    import onnxruntime

    size = sum(tensor.numel() * tensor.element_size() for tensor in encoder.state_dict().values())
    outside = size > LARGEST
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        with _quiet():
            torch.onnx.export(
                encoder,
                (_traceable(encoder),),
                temporary,
                input_names=[IMAGES],
                output_names=[FEATURES],
                dynamic_shapes={IMAGES: {0: torch.export.Dim("batch")}},
                external_data=outside,
                dynamo=True,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        for count in (1, TRIED):
            images = _images(encoder, count)
            found = session.run([FEATURES], {IMAGES: images.numpy()})[0]
            _compare(torch.from_numpy(found), encoder, images, "onnxruntime")
        made = sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name)  # weights before what needs them
        for file in made:
            file.replace(path.parent / file.name)
        if not outside:
            path.with_name(path.name + ".data").unlink(missing_ok=True)
    return [path.parent / file.name for file in reversed(made)]


def write_program(path: Path, encoder: PretrainedEncoder) -> list[Path]:
    """Writes ``encoder`` as a program of torch.export, for ``torch.export.load(path).module()``.

    Raises:
        ProgramError: if the program computes other features than the encoder.
    """
    with _quiet():
        program = torch.export.export(
            encoder, (_traceable(encoder),), dynamic_shapes={IMAGES: {0: torch.export.Dim("batch")}}
        )
        with replacing(path) as temporary:
            with temporary.open("wb") as file:
                torch.export.save(program, file)
            with temporary.open("rb") as file:
                loaded = torch.export.load(file).module()
            for count in (1, TRIED):
                images = _images(encoder, count)
                _compare(loaded(images), encoder, images, "torch.export")
    return [path]


def _traceable(encoder: PretrainedEncoder) -> Tensor:
    """Images for tracing; computes position embeddings beforehand, so that they are not traced."""
    images = _images(encoder, TRACED)
    with torch.no_grad():
        encoder(images)
    return images


def _images(encoder: PretrainedEncoder, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, encoder.spec.channels, *encoder.spec.image_size, generator=generator)


@torch.no_grad()
def _compare(found: Tensor, encoder: PretrainedEncoder, images: Tensor, judge: str) -> None:
    off = (found - encoder(images)).abs().max().item()
    if not off < TOLERANCE:
        raise ProgramError(f"{judge} computes features that differ by {off:.2g}; nothing was written")


class _quiet(warnings.catch_warnings):  # noqa: N801
    """Silences the exporters' messages about their internals."""

    def __enter__(self) -> None:  # type: ignore[override]
        super().__enter__()
        warnings.simplefilter("ignore")
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *error: Any) -> None:
        logging.disable(self._level)
        super().__exit__(*error)
