"""Target blocks of images, with the class of the object in each."""

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ijepa.data.datamodule import DataModule
from ijepa.data.loader import batched
from ijepa.data.sets import Images, UnreadableError, map_kinds, read_map
from ijepa.evaluation.context import label_sets
from ijepa.masking import Masking, Masks
from ijepa.util.errors import ConfigError
from ijepa.util.randomness import Stream, shuffled

MAPS = ("colour", "segmentation")
"""Kinds of maps from which the class of a block's object is read; the first that there is, unless one is chosen."""
KEY = "task.decode.label"
PASSES = 8


class Blocks(NamedTuple):
    """One block of each of n images.

    Attributes:
        images: [n, C, H, W], transformed for evaluation.
        masks: targets [n, 1, K].
        labels: [n], the class of the object in the block, or of the image; -1: unknown.
    """

    images: Tensor
    masks: Masks
    labels: Tensor


class Wanted(NamedTuple):
    """Which blocks are chosen, where images have maps.

    Attributes:
        label: kind of map, or label set, that gives the class; None: no classes.
        object_share: smallest part of the block that objects cover.
        visible_share: smallest part of the object's pixels that the context shows.
    """

    label: str | None
    object_share: float = 0.0
    visible_share: float = 0.0


def find_label(data: DataModule, chosen: str | None, maps: bool = True) -> str | None:
    """The kind of map (if ``maps``) or label set that ``task.decode.label`` names, or by default the first; None: none.

    Raises:
        ConfigError: if the images do not have it.
    """
    parts = (data.source.train, data.source.val)
    kinds = [kind for kind in MAPS if maps and all(kind in map_kinds(part) for part in parts)]
    options = [*kinds, *label_sets(data)]
    if chosen is None:
        return options[0] if options else None
    if chosen not in options:
        raise ConfigError(KEY, chosen, f"the images have no such map or labels; try {', '.join([*options, 'null'])}")
    return chosen


class ImagesWithObjects(Dataset[tuple[Tensor, Tensor, Tensor, str]]):
    """By index: an image, the class and the object of each pixel [H, W], and why it is unreadable ("": it is not)."""

    def __init__(self, images: Images, data: DataModule, label: str | None) -> None:
        self.images, self.transform, self.label, self.channels = images, data.eval_transform, label, data.channels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, str]:
        size, kinds = self.transform.size, map_kinds(self.images)
        none = torch.zeros(size, dtype=torch.int64)
        try:
            image = self.transform(self.images.read(index))
            if self.label is None or self.label not in kinds:
                return image, none, none, ""
            classes = self.transform.transform_map(read_map(self.images, index, self.label))
            objects = classes
            if "instances" in kinds:
                objects = self.transform.transform_map(read_map(self.images, index, "instances"))
        except UnreadableError as error:
            return torch.zeros(self.channels, *size), none, none, str(error)
        return image, classes, objects, ""


def choose(
    data: DataModule, images: Images, masking: Masking, seed: int, wanted: Wanted, patch_size: int, batch_size: int,
    again: bool = False,
) -> Generator[Blocks]:  # fmt: skip
    """The wanted blocks of ``images``, in an order drawn by seed: the first one of each image that has one.

    Masks are those of consecutive steps of a run with this seed, so that sizes vary. Images without a wanted block come
    again, with other masks, `PASSES` times in all; with ``again``, all images do.
    """
    has_map = wanted.label is not None and wanted.label in map_kinds(images)
    labels = None if wanted.label is None or has_map else torch.tensor(images.labels[wanted.label])
    left, step = shuffled(seed, Stream.BLOCK_ORDER, 0, len(images)).tolist(), 0
    for _ in range(PASSES):
        used = set[int]()
        batches = [[left[row] for row in rows] for rows in batched(len(left), batch_size)]
        loader = data.loader(ImagesWithObjects(images, data, wanted.label), batches)
        for rows, items in zip(batches, loader, strict=True):
            masks = masking.sample(seed, step, np.arange(len(rows)))
            found = _wanted(items, masks, wanted, patch_size, None if labels is None else labels[rows])
            step += 1
            if found:
                at, block, label = torch.tensor(found).T
                used.update(rows[row] for row in at.tolist())
                chosen = masks.rows(at).with_targets(masks.targets[at, block][:, None])
                yield Blocks(items[0][at], chosen, label)
        left = left if again else [row for row in left if row not in used]


def _wanted(
    items: Any, masks: Masks, wanted: Wanted, patch_size: int, labels: Tensor | None
) -> list[tuple[int, int, int]]:
    """Row, block and class of the first wanted block of each image of a batch of `ImagesWithObjects`.

    ``labels``: [B], the images' classes; None: those of their maps, or none.
    """
    _, all_classes, all_objects, faults = items
    has_map = labels is None and wanted.label is not None
    found = []
    for row, fault in enumerate(faults):
        if fault:
            continue
        context = masks.context[row] if masks.valid is None else masks.context[row][masks.valid[row]]
        for block in range(masks.targets.shape[1]):
            label = -1 if labels is None else int(labels[row])
            if has_map:
                size = all_classes[row].shape
                inside, shown = (_where(patches, size, patch_size) for patches in (masks.targets[row, block], context))
                label = _class_of_object(all_classes[row], all_objects[row], inside, shown, wanted)
                if label < 0:
                    continue
            found.append((row, block, label))
            break
    return found


def _where(patches: Tensor, shape: torch.Size, patch_size: int) -> Tensor:
    """Where patches [K] are: bool [H, W]."""
    rows, columns = shape[0] // patch_size, shape[1] // patch_size
    where = torch.zeros(rows * columns, dtype=torch.bool)
    where[patches] = True
    return where.view(rows, columns).repeat_interleave(patch_size, 0).repeat_interleave(patch_size, 1)


def _class_of_object(classes: Tensor, objects: Tensor, inside: Tensor, shown: Tensor, wanted: Wanted) -> int:
    """The class, from 0, of the object with most pixels ``inside`` a block; -1 if the block is not wanted."""
    there = objects[inside]
    there = there[there > 0]
    if len(there) < max(wanted.object_share * int(inside.sum()), 1):
        return -1
    main = objects == there.mode().values
    if int((main & shown).sum()) < wanted.visible_share * int(main.sum()):
        return -1
    label = int(classes[main & inside].mode().values) - 1
    return label if label >= 0 else -1
