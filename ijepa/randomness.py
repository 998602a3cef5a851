"""Counter-based random numbers: a pure function of (seed, stream, step, position), whoever draws them.

Philox-4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), vectorised over counters.
Each (seed, stream, step, position) owns a counter range of its own, so no two of them share a number.
"""

import numpy as np
from numpy.typing import NDArray

_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


Words = NDArray[np.uint64]


def philox(key: int, counter: tuple[Words, Words, Words, Words]) -> tuple[Words, Words, Words, Words]:
    """Four 32-bit words for each counter.

    Args:
        key: 64-bit key.
        counter: four words below 2**32, of shapes that broadcast: what they share is computed once.

    Returns:
        Four words below 2**32, in uint64, of the common shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (p1 >> _HALF) ^ (c1 ^ np.uint64(k0)), (p0 >> _HALF) ^ (c3 ^ np.uint64(k1))
        c1, c3 = p1 & _MASK, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def words(seed: int, stream: int, step: int, positions: NDArray[np.int64], count: int) -> NDArray[np.uint32]:
    """``count`` uniform 32-bit words for each position: [B, count].

    Args:
        seed: any integer; its low 64 bits are the key.
        stream: what the numbers are for, in [0, 2**32).
        step: in [0, 2**32).
        positions: [B] in [0, 2**32): places in the global batch, or indices of images.
        count: numbers for each position.
    """
    blocks = -(-count // 4)
    counter = (
        np.arange(blocks, dtype=np.uint64),
        np.asarray(positions, dtype=np.uint64)[:, None],
        np.array([step], dtype=np.uint64),
        np.array([stream], dtype=np.uint64),
    )
    drawn = np.empty((len(positions), blocks, 4), dtype=np.uint32)
    for word, values in enumerate(philox(seed & 0xFFFFFFFFFFFFFFFF, counter)):
        drawn[:, :, word] = values
    return drawn.reshape(len(positions), 4 * blocks)[:, :count]


def uniforms(seed: int, stream: int, step: int, positions: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """``count`` numbers in (0, 1) for each position: [B, count]; arguments as in `words`."""
    return (words(seed, stream, step, positions, count).astype(np.float64) + 0.5) / 2.0**32


def integers(uniform: NDArray[np.float64], bound: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Maps numbers in (0, 1) to integers in [0, bound)."""
    return np.floor(uniform * bound).astype(np.int64)


def seed_of(seed: int, stream: int, step: int, position: int) -> int:
    """A 64-bit seed for a generator that serves this (seed, stream, step, position) alone."""
    high, low = words(seed, stream, step, np.array([position]), 2)[0]
    return (int(high) << 32) | int(low)
