"""Export to ONNX and torch.export: programs from images in 0..1 to features or probabilities, for any batch size.

Each exported program is compared with the network before it is saved.
"""

import logging
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ijepa.models.pretrained import PretrainedEncoder
from ijepa.util.files import replacing

IMAGES, FEATURES = "images", "features"
TOLERANCE = 1e-4
"""Maximum absolute difference between a program's outputs and the network's, which are of order one."""
TRACE_BATCH, TEST_BATCH = 2, 3
"""Batch sizes for tracing and for testing."""
MAX_INLINE_BYTES = 2**31 - 2**20
"""Maximum bytes of weights inside an ONNX file; more are saved in a second file."""


class ProgramError(ValueError):
    """The exported program computes something else."""


@dataclass(frozen=True)
class Exportable:
    """What becomes a program.

    Attributes:
        network: maps images [B, C, H, W] to a tensor, or to a tuple of tensors.
        shape: C, H and W.
        outputs: names of the tensors.
        metadata: for ONNX.
    """

    network: nn.Module
    shape: tuple[int, int, int]
    outputs: tuple[str, ...] = (FEATURES,)
    metadata: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, encoder: PretrainedEncoder) -> "Exportable":
        """Patch features of an encoder, at its own image size."""
        return cls(encoder, (encoder.spec.channels, *encoder.spec.image_size))

    def images(self, count: int) -> Tensor:
        """Random images."""
        return torch.rand(count, *self.shape, generator=torch.Generator().manual_seed(count))

    def traceable(self) -> Tensor:
        """Images for tracing; runs the network once, so that position embeddings are cached and not traced."""
        images = self.images(TRACE_BATCH)
        with torch.no_grad():
            self.network(images)
        return images

    @torch.no_grad()
    def compare(self, found: Sequence[Tensor], images: Tensor, runtime: str) -> None:
        """Raises ProgramError if ``found`` is not what the network computes."""
        for values, expected in zip(found, as_tuple(self.network(images)), strict=True):
            max_difference = (values - expected).abs().max().item()
            if not max_difference < TOLERANCE:
                problem = f"{runtime} computes values that differ by {max_difference:.2g}; nothing was written"
                raise ProgramError(problem)


def as_tuple(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The tensors of a network's output."""
    return (output,) if isinstance(output, Tensor) else output


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


def write_onnx(path: Path, exportable: Exportable) -> list[Path]:
    """Writes a network as ONNX.

    Returns:
        The paths written: ``path`` and, for large weights, ``path`` with ``.data`` appended.

    Raises:
        ProgramError: if onnxruntime computes something else than the network.
    """
    import onnxruntime

    network, outputs = exportable.network, list(exportable.outputs)
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    external = size > MAX_INLINE_BYTES
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        with _quiet():
            program = torch.onnx.export(
                network,
                (exportable.traceable(),),
                input_names=[IMAGES],
                output_names=outputs,
                dynamic_shapes={IMAGES: {0: "batch"}},  # torch 2.9 refuses some networks with a Dim
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            program.model.metadata_props.update(exportable.metadata)
            program.save(temporary, external_data=external)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        for count in (1, TEST_BATCH):
            images = exportable.images(count)
            found = session.run(outputs, {IMAGES: images.numpy()})
            exportable.compare([torch.from_numpy(values) for values in found], images, "onnxruntime")
        files = sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name)  # the weights file first
        for file in files:
            file.replace(path.parent / file.name)
        if not external:
            path.with_name(path.name + ".data").unlink(missing_ok=True)
    return [path.parent / file.name for file in reversed(files)]


def write_program(path: Path, exportable: Exportable) -> list[Path]:
    """Writes a network as a torch.export program, for ``torch.export.load(path).module()``.

    Returns:
        The path written, as a list.

    Raises:
        ProgramError: if the program computes something else than the network.
    """
    with _quiet():
        program = torch.export.export(
            exportable.network,
            (exportable.traceable(),),
            dynamic_shapes={IMAGES: {0: torch.export.Dim("batch")}},
        )
        with replacing(path) as temporary:
            with temporary.open("wb") as file:
                torch.export.save(program, file)
            with temporary.open("rb") as file:
                loaded = torch.export.load(file).module()
            for count in (1, TEST_BATCH):
                images = exportable.images(count)
                exportable.compare(as_tuple(loaded(images)), images, "torch.export")
    return [path]


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
