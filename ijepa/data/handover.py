"""In a data loader process: items and batches, watched, and handed over in shared memory."""

import shutil
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset, get_worker_info

from ijepa.data import workers

SHARED_MEMORY = "/dev/shm"


class Watched(Dataset[Any]):
    """Items of a data set, in a data loader process that says when it is busy."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        with workers.busy():
            return self.dataset[key]


class NotHandedOver:
    """Takes the place of a batch that a process could not hand over."""

    def __init__(self, problem: str) -> None:
        self.problem = problem


class Handover:
    """Collates in a data loader process, and moves the batch to shared memory, where an error can still be reported.

    torch would do so in a thread, where an error loses the batch, and the main process would wait forever.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: list[Any]) -> Any:
        with workers.busy():
            try:
                batch = self.collate(items)
                for leaf in tree_leaves(batch):
                    if isinstance(leaf, Tensor) and get_worker_info() is not None:
                        leaf.share_memory_()
            except (RuntimeError, OSError) as error:
                problem = _problem(str(error))
                if problem is None:
                    raise
                return NotHandedOver(problem)
            return batch


def _problem(error: str) -> str | None:
    """What to try; None if shared memory is not the cause."""
    if "Too many open files" in error:
        return "too many open files; try fewer, or raise ulimit -n"
    if "File too large" in error:
        return "a batch is larger than a file may be; try 0, or raise ulimit -f"
    if "shared memory" not in error and "No space left" not in error:
        return None
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
        space = f" ({usage.free / 2**20:.0f} of {usage.total / 2**20:.0f} MiB of {SHARED_MEMORY} are free)"
    except OSError:
        space = ""
    return f"shared memory is full{space}; try 0, or give the container more: --shm-size=8g"
