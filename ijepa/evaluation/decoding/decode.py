"""task=decode: draws held-out blocks from their representations, and measures how close the pictures are."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ijepa import pictures as drawing
from ijepa.config.tasks import Decode
from ijepa.data.datamodule import DataModule
from ijepa.evaluation.decoding import blocks as choosing
from ijepa.evaluation.decoding import classifier as reading
from ijepa.evaluation.decoding.blocks import Blocks, Wanted
from ijepa.evaluation.decoding.measures import NOTHING, OTHER, OWN, Drawn, download, measure, nearest
from ijepa.evaluation.tasks import ModelResults
from ijepa.masking import Masking, Masks
from ijepa.models.conditions import Representation, boxes
from ijepa.models.decoder import pictures as crops
from ijepa.models.sketcher import Sketcher
from ijepa.pictures.samples import samples as samples_figure
from ijepa.util.errors import ConfigError
from ijepa.util.randomness import Stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 64
"""Representations whose samples are drawn at once."""
EVERY_SECONDS = 20
"""Between messages."""
MIN_BLOCKS = 2
"""Held-out blocks, at least: each is compared with another one."""


@dataclass(frozen=True)
class Decoded:
    """What `decode` returns: a row for each kind of representation, details for metrics.json, and figures."""

    rows: list[ModelResults]
    details: dict[str, Any]
    figures: "dict[str, Any]"


def decode(
    config: Decode, sketcher: Sketcher, data: DataModule, masking: Masking, seed: int, device: torch.device,
    bf16: bool = False, say: Callable[[str], None] = print,
) -> Decoded:  # fmt: skip
    """Draws held-out blocks from their own representation, another image's, and none.

    Raises:
        ConfigError: if the images lack what ``config`` asks for, or hold too few blocks.
    """
    label = choosing.find_label(data, config.label)
    downloaded = download(config, device)
    wanted = Wanted(label, config.object_share, config.visible_share)
    choose = partial(choosing.choose, data, masking=masking, seed=seed, patch_size=sketcher.spec.patch_size,
                     batch_size=config.batch_size)  # fmt: skip
    sketcher = sketcher.to(device).eval()
    size = sketcher.decoder.size
    held_out = _first(choose(images=data.source.val, wanted=wanted), config.blocks, MIN_BLOCKS)
    found = sum(len(part.labels) for part in held_out)
    if found < MIN_BLOCKS:
        problem = f"fewer than {MIN_BLOCKS} blocks of {len(data.source.val)} validation images hold such objects; try 0"
        raise ConfigError("task.decode.object_share", config.object_share, problem)
    examples = choose(images=data.source.train, wanted=Wanted(label, config.object_share), all_blocks=True)
    trained, labels = _training_blocks(sketcher, examples, config.train_blocks, device)
    classifier = None
    if label is not None:
        say(f"classifier of {label}, on {len(trained)} blocks of training images")
        known = labels >= 0
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (sketcher.spec.mean, sketcher.spec.std))
        classifier = reading.train(trained[known], labels[known], mean, std, config.classifier_epochs, seed)
    say(f"pictures of {found} blocks of validation images, {3 * config.samples} of each")
    drawn = _draw(sketcher, held_out, seed, config.samples, bf16, say)
    rows = measure(drawn, classifier, trained, config.fid, downloaded)
    details = {"label": label, "blocks": found, "samples": config.samples, "size": size,
               "train_blocks": len(trained), "condition": sketcher.conditions.condition}  # fmt: skip
    first = _shown(held_out, config.shown)
    figures = {
        "samples": lambda: _samples(sketcher, first, seed, config.samples, device),
        "representations": lambda: _representations(drawn, trained, min(config.shown, found)),
    }
    return Decoded(rows, details, figures)


def _first(parts: Iterable[Blocks], count: int, least: int) -> list[Blocks]:
    """The first ``count`` blocks of ``parts``; batches with fewer than ``least`` are left out."""
    found: list[Blocks] = []
    for part in parts:
        left = count - sum(len(each.labels) for each in found)
        taken = _take(part, left)
        if len(taken.labels) >= least:
            found.append(taken)
        if left <= len(part.labels):
            break
    return found


def _take(part: Blocks, count: int) -> Blocks:
    masks = Masks(*(None if each is None else each[:count] for each in part.masks))  # type: ignore[arg-type]
    return Blocks(part.images[:count], masks, part.labels[:count])


def _shown(parts: list[Blocks], count: int) -> Blocks:
    """Up to ``count`` blocks of one batch: their sizes must be the same."""
    return _take(parts[0], count)


def _training_blocks(
    sketcher: Sketcher, parts: Iterable[Blocks], count: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Up to ``count`` blocks of training images as pictures [m, C, S, S], and their labels [m]."""
    found, labels, total = [], [], 0
    for part in parts:
        images, masks = sketcher.normalised(part.images.to(device)), _moved(part.masks, device)
        blocks = boxes(masks.targets[:, 0], sketcher.spec.grid)
        found.append(_compared(sketcher, sketcher.values(sketcher.truth(images, masks)), blocks))
        labels.append(part.labels.to(device))
        total += len(part.labels)
        if total >= count:
            break
    return torch.cat(found)[:count], torch.cat(labels)[:count]


def _draw(
    sketcher: Sketcher, parts: list[Blocks], seed: int, count: int, bf16: bool, say: Callable[[str], None]
) -> Drawn:
    """Pictures of blocks; the noise is the same for all kinds of representation."""
    device = sketcher.mean.device
    truths, representations, noises = [], [], []
    for step, part in enumerate(parts):
        images, masks = sketcher.normalised(part.images.to(device)), _moved(part.masks, device)
        others = images.roll(1, 0)  # another image's representation of the same block
        pair = sketcher.conditions(images, masks), sketcher.conditions(others, masks)
        truths.append(_compared(sketcher, sketcher.values(sketcher.truth(images, masks)), pair[0].blocks))
        representations.append(pair)
        noises.append(sketcher.noise(seed, Stream.DECODER_SAMPLES, step, np.arange(len(images)), count).to(device))
    labels = torch.cat([part.labels for part in parts]).to(device)
    if len({own.tokens.shape[1] for own, _ in representations}) == 1:  # larger batches are faster
        own, other = (_joined(kind) for kind in zip(*representations, strict=True))
        truths, representations, noises = [torch.cat(truths)], [(own, other)], [torch.cat(noises)]
    made: dict[str, list[Tensor]] = {OWN: [], OTHER: [], NOTHING: []}
    is_integer = all(bool((truth >= 0).all() and (truth <= 1).all()) for truth in truths)
    reported = time.monotonic()
    for (own, other), noise in zip(representations, noises, strict=True):
        for start in range(0, len(own.tokens), ROWS):
            for name, kind, guidance in ((OWN, own, None), (OTHER, other, None), (NOTHING, own, 0.0)):
                rows = Representation(*(tensor[start : start + ROWS] for tensor in kind)).repeated(count)
                some = noise[start * count : (start + ROWS) * count]
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    pictures = sketcher.samples(rows, some, guidance)
                pictures = _compared(sketcher, pictures.clamp(0, 1) if is_integer else pictures, rows.blocks)
                made[name].append(pictures.unflatten(0, (-1, count)))
            if time.monotonic() - reported > EVERY_SECONDS:
                reported = time.monotonic()
                say(f"pictures of {sum(map(len, made[OWN]))} of {len(labels)} blocks")
    return Drawn(torch.cat(truths), {name: torch.cat(parts) for name, parts in made.items()}, labels)


def _joined(parts: Iterable[Representation]) -> Representation:
    return Representation(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _compared(sketcher: Sketcher, pictures: Tensor, blocks: Tensor) -> Tensor:
    """Of pictures of whole images that are drawn from a block's representation, only the block is compared."""
    if sketcher.decoder.shown == "block" or sketcher.conditions.condition == "image":
        return pictures
    return crops(pictures, blocks, sketcher.decoder.size, "block")


def _moved(masks: Masks, device: torch.device) -> Masks:
    return Masks(*(None if each is None else each.to(device) for each in masks))  # type: ignore[arg-type]


def _samples(sketcher: Sketcher, part: Blocks, seed: int, count: int, device: torch.device) -> "Figure":
    masks = _moved(part.masks, device)
    own = sketcher.conditions(sketcher.normalised(part.images.to(device)), masks).repeated(count)
    noise = sketcher.noise(seed, Stream.DECODER_SAMPLES, 0, np.arange(len(part.labels)), count)
    drawn = sketcher.samples(own, noise.to(device)).cpu().unflatten(0, (len(part.labels), count))
    return samples_figure(part.images, part.masks, drawn, sketcher.decoder.shown, sketcher.spec.patch_size)


def _representations(drawn: Drawn, trained: Tensor, count: int) -> "Figure":
    """Blocks, two samples of each kind of representation, and the training block nearest to the first sample."""
    from ijepa.pictures.sheet import rgb, sheet

    closest = trained[nearest(drawn.samples[OWN][:count, 0], trained)[1]]
    columns = [drawn.truth[:count], *(drawn.samples[name][:count, number] for name in (OWN, OTHER, NOTHING)
                                      for number in (0, 1)), closest]  # fmt: skip
    stacked = torch.stack(columns, dim=1).cpu()  # [n, 8, C, S, S]
    pictures = rgb(stacked.flatten(0, 1)).reshape(*stacked.shape[:2], *stacked.shape[-2:], 3)
    titles = ["block", "its own", "", "another\u2019s", "", "none", "", "in training"]
    figure, _ = sheet([list(row) for row in pictures], titles)
    return figure


def without_nothing(rows: list[ModelResults]) -> list[ModelResults]:
    """The rows of a decoder from which the representation was never withheld: it draws nothing without."""
    return [row for row in rows if row.name != NOTHING]


def write(decoded: Decoded, folder: Path) -> list[Path]:
    """Writes the figures; returns their paths."""
    written = []
    for name, make in decoded.figures.items():
        written.append(folder / f"{name}.png")
        drawing.write(make(), written[-1])
    return written
