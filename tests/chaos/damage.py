"""Damages the contents of a file, as disks, networks and attackers do."""

import numpy as np


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """``data`` with bits flipped, cut, zeroed, repeated, or with a number of its header blown up."""
    kind = rng.integers(6)
    content = bytearray(data)
    if kind == 0:
        return bytes(content[: rng.integers(len(content) + 1)])
    if kind == 1:  # a few bits anywhere
        for at in rng.integers(0, len(content), rng.integers(1, 9)):
            content[at] ^= 1 << rng.integers(8)
    elif kind == 2:  # the header, where sizes and types are
        for at in rng.integers(0, min(len(content), 200), rng.integers(1, 5)):
            content[at] = rng.integers(256)
    elif kind == 3:
        start, length = rng.integers(len(content)), rng.integers(1, 512)
        content[start : start + length] = bytes(min(int(length), len(content) - int(start)))
    elif kind == 4:
        start, length = rng.integers(len(content)), int(rng.integers(1, 512))
        content[start:start] = content[start : start + length]
    else:  # 32 bits that say: as many as there can be
        start = int(rng.integers(max(min(len(content), 400) - 4, 1)))
        content[start : start + 4] = b"\xff\xff\xff\x7f"
    return bytes(content)
