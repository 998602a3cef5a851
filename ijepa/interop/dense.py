"""An encoder with a linear head on each patch: predicts depth or class of every pixel of an image."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from ijepa.config.trust import UntrustedError, trusting
from ijepa.data.decode import Picture, read_picture
from ijepa.data.images import EvalTransform
from ijepa.data.limits import MAX_DEVIATIONS, ValueLimit, without_pillow_limit
from ijepa.interop.heads_file import DENSE, find_heads, read_heads, stored_deviations, write_heads
from ijepa.interop.weights import Which
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.util.errors import UserError

Kind = Literal["depth", "segmentation"]
MAX_VALUES = 2**26
"""Interpolated outputs that are in memory at once."""
OVERLAP = 4
"""Neighbouring windows share at least this part of their side: a quarter."""


@dataclass
class DenseDescription:
    """Everything but the weights.

    Attributes:
        kind: what is predicted: ``depth`` (the head's output is its logarithm) or ``segmentation`` (logits).
        size, crop, stretch: how images are transformed, see `EvalTransform`.
        layers: features are those of the last ``layers`` blocks.
        max_pixels: images with more pixels are not decoded; None: no limit.
        max_deviations: float images with values further from the encoder's mean, in standard deviations, are refused.
        facts: how the head was trained and how good it is; for people, not used.
    """

    kind: Kind
    size: tuple[int, int]
    crop: float = 1.0
    stretch: bool = False
    layers: int = 1
    max_pixels: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    max_deviations: float = MAX_DEVIATIONS


class WholeImage(NamedTuple):
    """An image [C, H', W'] at the scale of training, and its own height and width."""

    pixels: Tensor
    size: tuple[int, int]


class DensePredictor(nn.Module):
    """An encoder and a head; `predict` takes files.

    Images that are not square, or are cropped in evaluation, are covered by overlapping windows of the size of
    training, whose outputs are averaged where they overlap.

    Args:
        encoder: computes the features.
        head: maps patch features [.., D * layers] to K outputs.
        description: of the head.
        which: which encoder of a run it is.
    """

    def __init__(
        self, encoder: PretrainedEncoder, head: nn.Linear, description: DenseDescription, which: Which = "target"
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.description = description
        self.which = which
        channels = encoder.spec.channels
        self.transform = EvalTransform(description.size, description.crop, channels, description.stretch)
        self.eval()

    @property
    def value_limit(self) -> ValueLimit:
        """How far the values of float images may be from the encoder's mean."""
        return ValueLimit.of_encoder(self.encoder.spec.mean, self.encoder.spec.std, self.description.max_deviations)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs [B, K, H, W] for images [B, C, H, W] in 0..1: log depths, or logits."""
        patches = self.coarse(self.encoder(images, last=self.description.layers), images)
        return F.interpolate(patches, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def coarse(self, features: Tensor, images: Tensor) -> Tensor:
        """Outputs [B, K, rows, columns] of each patch, from patch features [B, N, D * layers] of ``images``."""
        side = self.encoder.spec.patch_size
        outputs: Tensor = self.head(features)
        return outputs.unflatten(1, (images.shape[-2] // side, images.shape[-1] // side)).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def predict(self, images: Iterable[str | Path | Picture] | str | Path, batch_size: int = 64) -> Iterator[Tensor]:
        """The map of each image, one after the other.

        Args:
            images: files, PIL images, or tensors [C, H, W], uint8 or in 0..1; or a single file.
            batch_size: windows of an image per forward pass.

        Yields:
            [H, W], as large as the image: depths (float32, in the units of the maps of training) or classes (int64).

        Raises:
            UserError: if a file cannot be read, or an image is too long.
        """
        for image in [images] if isinstance(images, str | Path) else images:
            picture = read_picture(image, self.encoder.spec.channels, self.description.max_pixels, self.value_limit)
            try:
                whole = whole_image(picture, self.transform)
            except ValueError as error:
                raise UserError(f"{image if isinstance(image, str | Path) else 'an image'}: {error}") from None
            yield from self.maps([whole], self._embed, batch_size)

    @torch.inference_mode()
    def maps(self, images: list[WholeImage], embed: Callable[[Tensor], Tensor], batch_size: int) -> Iterator[Tensor]:
        """The maps [H, W] of images from `whole_image`, on the CPU, one after the other.

        Args:
            images: of any sizes.
            embed: from images [B, C, H, W] to patch features [B, N, D * layers].
            batch_size: windows per forward pass.

        Raises:
            UserError: if the outputs are not finite.
        """
        device = next(self.parameters()).device
        corners = [_corners(image.pixels, self.description.size) for image in images]
        windows = [
            image.pixels[:, top : top + self.description.size[0], left : left + self.description.size[1]]
            for image, each in zip(images, corners, strict=True)
            for top, left in each
        ]
        outputs: list[Tensor] = []
        for start in range(0, len(windows), batch_size):
            batch = torch.stack(windows[start : start + batch_size]).to(device)
            outputs.extend(self.coarse(embed(batch), batch).float())
        if not all(values.isfinite().all() for values in outputs):
            raise UserError(f"the {self.description.kind} that is predicted is not finite; the weights are damaged")
        used = 0
        for image, each in zip(images, corners, strict=True):
            yield self._map(outputs[used : used + len(each)], each, image).cpu()
            used += len(each)

    def _map(self, outputs: list[Tensor], corners: list[tuple[int, int]], image: WholeImage) -> Tensor:
        """The map [H, W] of an image from the outputs [K, rows, columns] of its windows, a few outputs at a time."""
        size, resized = image.size, image.pixels.shape[-2:]
        step = max(MAX_VALUES // max(math.prod(size), math.prod(resized)), 1)
        best = index = torch.empty(0)
        for start in range(0, len(outputs[0]), step):
            joined = self._joined([values[start : start + step] for values in outputs], corners, resized)
            values = F.interpolate(joined[None], size, mode="bilinear", align_corners=False)
            if self.description.kind == "depth":
                return values_of("depth", values)[0]
            value, place = values[0].max(dim=0)
            index = torch.where(value > best, place + start, index) if start else place
            best = torch.maximum(value, best) if start else value
        return index

    def _joined(self, outputs: list[Tensor], corners: list[tuple[int, int]], size: torch.Size) -> Tensor:
        """Averages the outputs [k, rows, columns] of windows where they overlap: [k, *size]."""
        height, width = self.description.size
        canvas = outputs[0].new_zeros(len(outputs[0]), *size)
        count = canvas.new_zeros(size)
        for values, (top, left) in zip(outputs, corners, strict=True):
            area = (..., slice(top, top + height), slice(left, left + width))
            canvas[area] += F.interpolate(values[None], (height, width), mode="bilinear", align_corners=False)[0]
            count[area] += 1
        return canvas / count

    def _embed(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(images, last=self.description.layers)
        return features


def whole_image(image: Picture, transform: EvalTransform) -> WholeImage:
    """An image as `DensePredictor.maps` takes it; raises ValueError if it is too long."""
    with without_pillow_limit():
        height, width = TF.get_size(image)
    return WholeImage(transform.uncropped(image), (height, width))


def values_of(kind: str, outputs: Tensor) -> Tensor:
    """From a head's outputs [B, K, H, W] to predicted maps [B, H, W]."""
    return outputs[:, 0].exp() if kind == "depth" else outputs.argmax(dim=1)


def write_dense(path: Path, predictor: DensePredictor) -> None:
    """Writes encoder and head atomically; the encoder in it can be loaded from the file, too."""
    description = predictor.description
    plain = {"kind": description.kind, "outputs": predictor.head.out_features, "size": description.size,
             "crop": description.crop, "stretch": description.stretch, "layers": description.layers,
             "max_pixels": description.max_pixels, "max_deviations": description.max_deviations,
             "facts": description.facts}  # fmt: skip
    write_heads(path, DENSE, predictor.encoder, predictor.which, [predictor.head], plain)


def load_dense(path: str | Path, trust: str | Sequence[str] = ()) -> DensePredictor:
    """Loads a head for every pixel that ``task=depth`` or ``task=segmentation`` has left, in eval mode.

    Args:
        path: ``depth.safetensors``, ``segmentation.safetensors``, the folder that contains one, or the folder of a run
            with one evaluation.
        trust: see `ijepa.load_encoder`.

    Raises:
        UserError: if the file is missing, or does not contain such a head.
    """
    file = find_heads(path, [DENSE])
    try:
        with trusting(trust):
            found = read_heads(file, DENSE)
        values = found.description
        description = _described(values)
        side = found.encoder.spec.patch_size
        if any(length % side for length in description.size):
            raise ValueError(f"its size is no multiple of the encoder's patches of {side} pixels")
        head = nn.Linear(found.encoder.spec.width * description.layers, int(values["outputs"]))
        (state,) = found.heads
        head.load_state_dict(state)
    except UntrustedError:
        raise
    except RuntimeError:
        raise UserError(f"{file}: its head does not match its description") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # it can be edited by hand
        raise UserError(f"{file}: {error}") from None
    return DensePredictor(found.encoder, head, description, found.which)


def _described(values: dict[str, Any]) -> DenseDescription:
    height, width = values["size"]
    numbers = {"size": height, "width": width, "layers": values["layers"], "outputs": values["outputs"]}
    if values["kind"] not in get_args(Kind):
        raise ValueError(f"its head is of an unknown kind, {values['kind']}")
    if not all(isinstance(value, int) and value > 0 for value in numbers.values()) or not 0 < values["crop"] <= 1:
        raise ValueError("its sizes should be positive numbers")
    if values["kind"] == "depth" and values["outputs"] != 1:
        raise ValueError("depth has one output")
    if values["max_pixels"] is not None and not isinstance(values["max_pixels"], int):
        raise ValueError("max_pixels should be a number")
    return DenseDescription(
        values["kind"], (height, width), float(values["crop"]), bool(values["stretch"]), values["layers"],
        values["max_pixels"], dict(values["facts"]), stored_deviations(values),
    )  # fmt: skip


def _corners(image: Tensor, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Top and left of as few windows as cover an image [C, H, W] with some overlap, evenly spaced."""
    tops, lefts = (_starts(length, window) for length, window in zip(image.shape[-2:], size, strict=True))
    return [(top, left) for top in tops for left in lefts]


def _starts(length: int, window: int) -> list[int]:
    overlap = window // OVERLAP
    count = math.ceil((length - overlap) / (window - overlap))
    return [round(number * (length - window) / max(count - 1, 1)) for number in range(count)]
