"""Export of encoders to ONNX and torch.export: programs from images in 0..1 to patch features, for any batch size.

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
"""Maximum absolute difference between a program's features and the encoder's, which are of order one."""
TRACE_BATCH, TEST_BATCH = 2, 3
"""Batch sizes for tracing and for testing."""
MAX_INLINE_BYTES = 2**31 - 2**20
"""Maximum bytes of weights inside an ONNX file; more are saved in a second file."""


class ProgramError(ValueError):
    """The exported program computes different features."""


def missing_package(kind: str) -> str | None:
    """A package that format ``kind`` needs but that is not installed, or None."""
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
        ProgramError: if onnxruntime computes different features than the encoder.
    """
    import onnxruntime

    size = sum(tensor.numel() * tensor.element_size() for tensor in encoder.state_dict().values())
    external = size > MAX_INLINE_BYTES
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
                external_data=external,
                dynamo=True,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        for count in (1, TEST_BATCH):
            images = _images(encoder, count)
            features = session.run([FEATURES], {IMAGES: images.numpy()})[0]
            _compare(torch.from_numpy(features), encoder, images, "onnxruntime")
        files = sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name)  # the weights file first
        for file in files:
            file.replace(path.parent / file.name)
        if not external:
            path.with_name(path.name + ".data").unlink(missing_ok=True)
    return [path.parent / file.name for file in reversed(files)]


def write_program(path: Path, encoder: PretrainedEncoder) -> list[Path]:
    """Writes ``encoder`` as a torch.export program, for ``torch.export.load(path).module()``.

    Returns:
        The path written, as a list.

    Raises:
        ProgramError: if the program computes different features than the encoder.
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
            for count in (1, TEST_BATCH):
                images = _images(encoder, count)
                _compare(loaded(images), encoder, images, "torch.export")
    return [path]


def _traceable(encoder: PretrainedEncoder) -> Tensor:
    """Images for tracing; runs the encoder once, so that position embeddings are cached and not traced."""
    images = _images(encoder, TRACE_BATCH)
    with torch.no_grad():
        encoder(images)
    return images


def _images(encoder: PretrainedEncoder, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, encoder.spec.channels, *encoder.spec.image_size, generator=generator)


@torch.no_grad()
def _compare(features: Tensor, encoder: PretrainedEncoder, images: Tensor, runtime: str) -> None:
    max_difference = (features - encoder(images)).abs().max().item()
    if not max_difference < TOLERANCE:
        raise ProgramError(f"{runtime} computes features that differ by {max_difference:.2g}; nothing was written")


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
