"""task=decode: draws held-out blocks from their representations, and measures how close the pictures are."""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ijepa import pictures as drawing
from ijepa.config.tasks import Decode
from ijepa.data.datamodule import DataModule
from ijepa.data.sets import map_kinds
from ijepa.evaluation.decoding import blocks as choosing
from ijepa.evaluation.decoding import classifier as reading
from ijepa.evaluation.decoding.blocks import Blocks, Wanted
from ijepa.evaluation.decoding.measures import NOTHING, OTHER, OWN, Downloaded, Drawn, download, measure, nearest
from ijepa.evaluation.tasks import ModelResults
from ijepa.masking import Masking
from ijepa.models.conditions import Representation, boxes
from ijepa.models.decoder import pictures as crops
from ijepa.models.sketcher import Sketcher
from ijepa.pictures.samples import samples as samples_figure
from ijepa.util.errors import ConfigError, UserError
from ijepa.util.randomness import Stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 64
"""Representations whose samples are drawn at once."""
EVERY_SECONDS = 20
"""Between messages."""
MIN_BLOCKS, MIN_CLASSES = 2, 2
"""Held-out blocks, at least: each is compared with another one; and classes of training blocks."""


@dataclass(frozen=True)
class Decoded:
    """What `decode` returns: a row for each kind of representation, details for metrics.json, and figures."""

    rows: list[ModelResults]
    details: dict[str, Any]
    figures: "dict[str, Any]"


class Prepared(NamedTuple):
    """What `decode` needs besides the decoder: which blocks to choose, and networks that are downloaded."""

    wanted: Wanted
    downloaded: Downloaded


def prepare(config: Decode, sketcher: Sketcher, data: DataModule, device: torch.device) -> Prepared:
    """Checks ``config`` against the images, and downloads what it asks for; writes nothing.

    Raises:
        ConfigError: if the images lack what ``config`` asks for, or weights cannot be loaded.
    """
    whole = _compares_images(sketcher)  # whose classes are of images, not of the object in a block
    label = choosing.find_label(data, config.label, maps=not whole)
    shares = (0.0, 0.0) if whole else (config.object_share, config.visible_share)
    for key, value, wanted in (("lpips", True, config.lpips), ("fid", "inception", config.fid == "inception")):
        if wanted and data.channels not in (1, 3):
            problem = f"is for images with 1 or 3 channels, not {data.channels}; omit it"
            raise ConfigError(f"task.decode.{key}", value, problem)
    if config.fid == "features" and label is None:
        print("decode_fid is left out: without classes there are no features to measure it in", flush=True)
    return Prepared(Wanted(label, *shares), download(config, device))


def decode(
    config: Decode, prepared: Prepared, sketcher: Sketcher, data: DataModule, masking: Masking, seed: int,
    device: torch.device, bf16: bool = False, withheld: bool = True, say: Callable[[str], None] = print,
) -> Decoded:  # fmt: skip
    """Draws held-out blocks from their own representation, another image's, and, if it is ``withheld``, none.

    Raises:
        ConfigError: if there are too few blocks, or classes.
    """
    wanted = prepared.wanted
    choose = partial(choosing.choose, data, masking=masking, seed=seed, patch_size=sketcher.spec.patch_size,
                     batch_size=config.batch_size)  # fmt: skip
    sketcher = sketcher.to(device).eval()
    held_out = _first(choose(images=data.source.val, wanted=wanted), config.blocks, MIN_BLOCKS)
    found = sum(len(part.labels) for part in held_out)
    has_maps = wanted.label is not None and wanted.label in map_kinds(data.source.val)
    if found < MIN_BLOCKS:
        raise _too_few(config, "validation", len(data.source.val), has_maps)
    bounded = all(part.images.dtype == torch.uint8 or bool(((part.images >= 0) & (part.images <= 1)).all())
                  for part in held_out)  # fmt: skip
    if not bounded and (prepared.downloaded.lpips is not None or prepared.downloaded.inception is not None):
        raise ConfigError("task.decode.lpips", config.lpips, "and fid=inception are for images in 0..1; omit them")
    limited = partial(torch.clamp, min=0, max=1) if bounded else _unchanged
    examples = choose(images=data.source.train, wanted=wanted._replace(visible_share=0.0), again=True)
    with contextlib.closing(examples):  # ends its loader's processes
        trained, labels = _training_blocks(sketcher, examples, config.train_blocks, device, limited)
    if not len(labels):
        raise _too_few(config, "training", len(data.source.train), has_maps)
    classifier = None
    if wanted.label is not None:
        say(f"classifier of {wanted.label}, on {len(trained)} blocks of training images")
        known = labels >= 0
        if len(labels[known].unique()) < MIN_CLASSES:
            problem = f"fewer than {MIN_CLASSES} classes among {len(labels)} blocks of training images; try null"
            raise ConfigError(choosing.KEY, config.label, problem)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (sketcher.spec.mean, sketcher.spec.std))
        classifier = reading.train(trained[known], labels[known], mean, std, config.classifier_epochs, seed)
    kinds = (OWN, OTHER, NOTHING) if withheld else (OWN, OTHER)
    say(f"pictures of {found} blocks of validation images, {len(kinds) * config.samples} of each")
    drawn = draw(sketcher, held_out, seed, config.samples, kinds, bf16, limited, say)
    rows = measure(drawn, classifier, trained, config.fid, prepared.downloaded)
    details = {"label": wanted.label, "blocks": found, "samples": config.samples, "size": sketcher.decoder.size,
               "train_blocks": len(trained), "condition": sketcher.conditions.condition}  # fmt: skip
    first = _take(held_out[0], config.shown)  # their sizes must be the same
    figures = {
        "samples": lambda: _samples(sketcher, first, seed, config.samples, device),
        "representations": lambda: _representations(drawn, trained, min(config.shown, found)),
    }
    return Decoded(rows, details, figures)


def _too_few(config: Decode, part: str, images: int, has_maps: bool) -> UserError:
    if not has_maps:
        return UserError(f"fewer than {MIN_BLOCKS} of {images} {part} images can be read; decoding compares several")
    problem = f"fewer than {MIN_BLOCKS} blocks of {images} {part} images hold such objects; try 0"
    return ConfigError("task.decode.object_share", config.object_share, problem)


def _unchanged(pictures: Tensor) -> Tensor:
    return pictures


def _first(parts: Iterable[Blocks], count: int, least: int) -> list[Blocks]:
    """The first ``count`` blocks of ``parts``, or one more; batches with fewer than ``least`` are left out."""
    found: list[Blocks] = []
    for part in parts:
        left = count - sum(len(each.labels) for each in found)
        taken = _take(part, max(left, least))
        if len(taken.labels) >= least:
            found.append(taken)
            if left <= len(taken.labels):
                break
    return found


def _take(part: Blocks, count: int) -> Blocks:
    return Blocks(part.images[:count], part.masks.rows(slice(count)), part.labels[:count])


def _training_blocks(
    sketcher: Sketcher, parts: Iterable[Blocks], count: int, device: torch.device, limited: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Up to ``count`` blocks of training images as pictures [m, C, S, S], and their labels [m]."""
    found, labels, total = [], [], 0
    for part in parts:
        images, masks = sketcher.normalised(part.images.to(device)), part.masks.to(device)
        blocks = boxes(masks.targets[:, 0], sketcher.spec.grid)
        found.append(_compared(sketcher, limited(sketcher.values(sketcher.truth(images, masks))), blocks))
        labels.append(part.labels.to(device))
        total += len(part.labels)
        if total >= count:
            break
    if not found:
        return torch.empty(0), torch.empty(0, dtype=torch.int64)
    return torch.cat(found)[:count], torch.cat(labels)[:count]


def draw(
    sketcher: Sketcher, parts: list[Blocks], seed: int, count: int, kinds: Sequence[str], bf16: bool,
    limited: Callable[[Tensor], Tensor], say: Callable[[str], None],
) -> Drawn:  # fmt: skip
    """Pictures of blocks, of each of ``kinds`` of representation; the noise is the same for all of them.

    Args:
        sketcher: draws.
        parts: blocks of at least two images each: another's representation is that of the image before.
        seed: of the noise.
        count: pictures of each representation.
        kinds: of `OWN`, `OTHER` and `NOTHING`.
        bf16: compute in bf16.
        limited: clamps pictures to the values that images may have.
        say: prints progress.
    """
    device = sketcher.mean.device
    truths, representations, noises = [], [], []
    for step, part in enumerate(parts):
        images, masks = sketcher.normalised(part.images.to(device)), part.masks.to(device)
        others = images.roll(1, 0)  # another image's representation of the same block
        pair = sketcher.conditions(images, masks), sketcher.conditions(others, masks)
        truths.append(_compared(sketcher, limited(sketcher.values(sketcher.truth(images, masks))), pair[0].blocks))
        representations.append(pair)
        noises.append(sketcher.noise(seed, Stream.DECODER_SAMPLES, step, np.arange(len(images)), count))
    labels = torch.cat([part.labels for part in parts]).to(device)
    if len({own.tokens.shape[1] for own, _ in representations}) == 1:  # larger batches are faster
        own, other = (_joined(kind) for kind in zip(*representations, strict=True))
        truths, representations, noises = [torch.cat(truths)], [(own, other)], [torch.cat(noises)]
    made: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    reported = time.monotonic()
    for (own, other), noise in zip(representations, noises, strict=True):
        for start in range(0, len(own.tokens), ROWS):
            for name, drawn in made.items():
                kind = other if name == OTHER else own
                rows = Representation(*(tensor[start : start + ROWS] for tensor in kind)).repeated(count)
                some = noise[start * count : (start + ROWS) * count]
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    pictures = sketcher.samples(rows, some, 0.0 if name == NOTHING else None)
                drawn.append(_compared(sketcher, limited(pictures), rows.blocks).unflatten(0, (-1, count)))
            if time.monotonic() - reported > EVERY_SECONDS:
                reported = time.monotonic()
                say(f"pictures of {sum(map(len, made[OWN]))} of {len(labels)} blocks")
    return Drawn(torch.cat(truths), {name: torch.cat(parts) for name, parts in made.items()}, labels)


def _joined(parts: Iterable[Representation]) -> Representation:
    return Representation(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _compares_images(sketcher: Sketcher) -> bool:
    """Whether whole images are compared; else blocks, also of whole images that are drawn from a block's."""
    return sketcher.decoder.shown == "image" and sketcher.conditions.condition == "image"


def _compared(sketcher: Sketcher, pictures: Tensor, blocks: Tensor) -> Tensor:
    """The part of pictures that is compared with the truth; see `_compares_images`."""
    if sketcher.decoder.shown == "block" or _compares_images(sketcher):
        return pictures
    return crops(pictures, blocks, sketcher.decoder.size, "block")


def _samples(sketcher: Sketcher, part: Blocks, seed: int, count: int, device: torch.device) -> "Figure":
    own = sketcher.conditions(sketcher.normalised(part.images.to(device)), part.masks.to(device)).repeated(count)
    noise = sketcher.noise(seed, Stream.DECODER_SAMPLES, 0, np.arange(len(part.labels)), count)
    drawn = sketcher.samples(own, noise).cpu().unflatten(0, (len(part.labels), count))
    return samples_figure(part.images, part.masks, drawn, sketcher.decoder.shown, sketcher.spec.patch_size)


def _representations(drawn: Drawn, trained: Tensor, count: int) -> "Figure":
    """Blocks, two samples of each kind of representation, and the training block nearest to the first sample."""
    from ijepa.pictures.sheet import rgb, sheet

    closest = trained[nearest(drawn.samples[OWN][:count, 0], trained)[1]]
    pairs = [samples[:count, number] for samples in drawn.samples.values() for number in (0, 1)]
    columns = [drawn.truth[:count], *pairs, closest]
    stacked = torch.stack(columns, dim=1).cpu()  # [n, columns, C, S, S]
    pictures = rgb(stacked.flatten(0, 1)).reshape(*stacked.shape[:2], *stacked.shape[-2:], 3)
    titles = ["block", *(title for name in drawn.samples for title in (name.replace("'", "\u2019"), "")), "in training"]
    figure, _ = sheet([list(row) for row in pictures], titles)
    return figure


def write(decoded: Decoded, folder: Path) -> list[Path]:
    """Writes the figures; returns their paths."""
    written = []
    for name, make in decoded.figures.items():
        written.append(folder / f"{name}.png")
        drawing.write(make(), written[-1])
    return written
