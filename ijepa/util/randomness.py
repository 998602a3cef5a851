"""Counter-based random numbers: a pure function of (seed, stream, step, position), the same in every process.

NumPy's Philox-4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with key (seed, stream)
and counter (block, step, count, 0). Each position has its own consecutive blocks for ``count`` numbers, so that no two
positions share a number and a whole batch is one draw.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, unique

import numpy as np
from numpy.typing import NDArray


@unique
class Stream(IntEnum):
    """Random streams of the seed of a run or an evaluation: one for each use.

    Never change a number: every seed would draw other values.
    """

    VALIDATION_SPLIT = 3
    TRAIN_CROP = 4
    EPOCH_ORDER = 5
    PROBE_HOLDOUT = 6
    STATISTICS_SAMPLE = 7
    BOOTSTRAP = 8
    PROBE_ORDER = 9
    PROBE_CROP = 10
    LINEAR_INIT = 11
    LABELLED_IMAGES = 12
    FOLDS = 13
    FINETUNE_INIT = 14
    MIXUP = 15
    ATTENTIVE_INIT = 16
    DENSE_INIT = 17
    HEALTH_CROP = 18
    DIFFUSION = 1_000_001  # beyond the attempts of masks, which have the same steps and positions
    DECODER_INIT = 1_000_002
    DECODER_SAMPLES = 1_000_003
    BLOCK_CLASSIFIER = 1_000_004
    HEALTH_NOISE = 1_000_005
    BLOCK_ORDER = 1_000_006


@unique
class MaskStream(IntEnum):
    """Random streams of masks. Attempt a at placing an image's blocks draws from PLACEMENT + a.

    From 16 on, numbers may coincide with those of `Stream`, whose draws have other steps, positions and counts.
    """

    SIZES = 1
    SURPLUS = 2
    PLACEMENT = 16


@unique
class SceneStream(IntEnum):
    """Random streams of rendered scenes, which have their own seed."""

    VIEW = 7
    OBJECTS = 8


_WORD = 0xFFFFFFFFFFFFFFFF
_WORDS_PER_BLOCK = 4
_BLOCKS_PER_START = 1000
"""Creating a generator takes as long as drawing this many blocks."""


def words(seed: int, stream: int, step: int, positions: NDArray[np.int64], count: int) -> NDArray[np.uint64]:
    """``count`` uniform 64-bit words for each position: [B, count].

    Args:
        seed: any integer; its low 64 bits are used.
        stream: in [0, 2**64): a `Stream`, `MaskStream` or `SceneStream`.
        step: in [0, 2**64).
        positions: [B], not negative, in any order: positions in the effective batch, or image indices.
        count: words per position; another count gives other words.
    """
    blocks = -(-count // _WORDS_PER_BLOCK)
    key = np.array([seed & _WORD, stream], dtype=np.uint64)

    def draw(first: int, many: int) -> NDArray[np.uint64]:
        """The words of positions ``first``, ..., ``first + many - 1``."""
        counter = np.array([first * blocks, step, count, 0], dtype=np.uint64)
        raw = np.random.Philox(counter=counter, key=key).random_raw(many * blocks * _WORDS_PER_BLOCK)
        return np.asarray(raw).reshape(many, -1)[:, :count]

    if not len(positions):
        return np.empty((0, count), dtype=np.uint64)
    first, last = int(positions.min()), int(positions.max())
    span = last - first + 1
    if span * blocks > len(positions) * (blocks + _BLOCKS_PER_START):
        return np.concatenate([draw(int(position), 1) for position in positions])
    drawn = draw(first, span)
    in_order = span == len(positions) and bool((positions[1:] > positions[:-1]).all())
    return drawn if in_order else drawn[positions - first]


def uniforms(seed: int, stream: int, step: int, positions: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """``count`` uniform numbers in (0, 1) for each position: [B, count]; for the arguments see `words`."""
    return ((words(seed, stream, step, positions, count) >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52


def integers(uniform: NDArray[np.float64], bound: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Maps uniform numbers in (0, 1) to integers in [0, bound)."""
    return np.floor(uniform * bound).astype(np.int64)


def shuffled(seed: int, stream: int, step: int, count: int) -> NDArray[np.int64]:
    """A random permutation of 0..count-1: [count]; for the arguments see `words`."""
    return np.argsort(words(seed, stream, step, np.arange(count), 1)[:, 0], kind="stable")


def seed_of(seed: int, stream: int, step: int, position: int) -> int:
    """A 64-bit seed for a separate generator of this (seed, stream, step, position)."""
    return int(words(seed, stream, step, np.array([position]), 1)[0, 0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators of Python and NumPy, which libraries use; restores their state afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
