"""Chooses the held-out images on which a run is monitored; the choice is the same throughout the run."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ijepa.data.sets import Images


def heldout_indices(images: Images, count: int) -> list[int]:
    """The sorted indices of up to ``count`` of ``images``.

    They are evenly spaced, unless the first label set has so many classes that few images would share one. Then up to
    sqrt(count) images of each of some evenly spaced classes are taken, because leave-one-out k-NN needs several images
    per class.
    """
    if len(images) <= count:
        return list(range(len(images)))
    labels = _first_labels(images.labels)
    classes = np.unique(labels[labels >= 0])  # -1: no label
    per_class = math.isqrt(count)
    if len(classes) * per_class // 2 <= count:
        return evenly_spaced(len(images), count)
    indices: list[int] = []
    for class_index in _bit_reversed(len(classes)):
        members = np.flatnonzero(labels == classes[class_index])
        number = min(per_class, len(members), count - len(indices))
        indices += members[evenly_spaced(len(members), number)].tolist()
        if len(indices) == count:
            break
    unlabelled = np.flatnonzero(labels < 0)  # fill up: most measures need no labels
    indices += unlabelled[evenly_spaced(len(unlabelled), count - len(indices))].tolist()
    return sorted(indices)


def _first_labels(labels: Mapping[str, Sequence[int]]) -> np.ndarray:
    return np.asarray(next(iter(labels.values()), []), dtype=np.int64)


def evenly_spaced(length: int, count: int) -> list[int]:
    """Up to ``count`` evenly spaced numbers of range(length)."""
    indices: list[int] = np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()
    return indices


def _bit_reversed(length: int) -> np.ndarray:
    """range(length) in bit-reversed order: every prefix covers the whole range evenly."""
    bits = max(length - 1, 1).bit_length()
    numbers = np.arange(1 << bits)
    reversed_numbers = np.zeros_like(numbers)
    for bit in range(bits):
        reversed_numbers |= ((numbers >> bit) & 1) << (bits - 1 - bit)
    return reversed_numbers[reversed_numbers < length]
