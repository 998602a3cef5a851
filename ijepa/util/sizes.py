"""Largest sizes of images and networks that are accepted, and whether weights fit into memory.

Far beyond any use, so that a slip or a hostile file is refused at once, instead of filling the memory.
"""

import os

MAX_SIDE = 2**15
"""Pixels of a side of the model's input."""
MAX_PIXELS = 2**28
"""Values in an image of the model's input: height x width x channels."""
MAX_PATCHES = 2**18
MAX_WIDTH = 2**16
MAX_DEPTH = 2**10
MAX_TARGETS = 2**10
"""Target blocks per image."""
MAX_BATCH = 2**20
"""Images in a global batch."""


def physical_memory() -> int | None:
    """Bytes of memory of this machine; None if the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def weight_bytes(width: int, depth: int, mlp_ratio: float) -> float:
    """Bytes of the float32 weights of ``depth`` transformer blocks, about."""
    return 4.0 * depth * (4 + 2 * mlp_ratio) * width**2


def memory_problem(width: int, depth: int, mlp_ratio: float) -> str | None:
    """What is wrong with a network of this size on this machine; None if its weights fit."""
    needed, there = weight_bytes(width, depth, mlp_ratio), physical_memory()
    if there is None or needed <= there:
        return None
    return f"its weights alone need {needed / 2**30:.0f} GiB; this machine has {there / 2**30:.0f} GiB"
