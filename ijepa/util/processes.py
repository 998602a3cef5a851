"""The processes of a run, as their launcher has numbered them."""

import os


def is_rank_zero() -> bool:
    """Whether this process is the first of its run (global rank 0), which manages the folder and prints."""
    names = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")
    return all(int(os.environ.get(name, "0")) <= 0 for name in names)
