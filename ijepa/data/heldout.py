"""Chooses the few held-out images on which a run is monitored, the same ones from start to end."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ijepa.data.sets import Images


def heldout_indices(images: Images, count: int) -> list[int]:
    """Indices of up to ``count`` of ``images``, in order.

    They are evenly spaced. If the first label set has too many classes for that, up to sqrt(count) images of evenly
    spaced classes are taken instead: leave-one-out k-NN needs several images per class.
    """
    if len(images) <= count:
        return list(range(len(images)))
    first = _first(images.labels)
    classes = np.unique(first[first >= 0])  # -1: no label
    company = math.isqrt(count)
    if len(classes) * company // 2 <= count:
        return evenly_spaced(len(images), count)
    found: list[int] = []
    for place in _bisected(len(classes)):
        members = np.flatnonzero(first == classes[place])
        wanted = min(company, len(members), count - len(found))
        found += members[evenly_spaced(len(members), wanted)].tolist()
        if len(found) == count:
            break
    return sorted(found)


def _first(labels: Mapping[str, Sequence[int]]) -> np.ndarray:
    return np.asarray(next(iter(labels.values()), []), dtype=np.int64)


def evenly_spaced(length: int, count: int) -> list[int]:
    """Up to ``count`` evenly spaced numbers of range(length)."""
    found: list[int] = np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()
    return found


def _bisected(length: int) -> np.ndarray:
    """range(length) in bit-reversed order: every prefix is spread over the whole range."""
    bits = max(length - 1, 1).bit_length()
    numbers = np.arange(1 << bits)
    turned = np.zeros_like(numbers)
    for bit in range(bits):
        turned |= ((numbers >> bit) & 1) << (bits - 1 - bit)
    return turned[turned < length]
