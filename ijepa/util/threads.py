"""How the threads of a CPU wait for each other."""

import os

SPINS = "1000"
"""How often a waiting thread looks again before it sleeps: some ten microseconds. libgomp's own 300,000 take
milliseconds, in which it keeps a core from the thread that it waits for, if another process is busy, too. With 1,000,
training alone is as fast; beside busy processes it is twice as fast (docs/faults.md)."""


def sleep_soon() -> None:
    """Makes waiting threads sleep soon; before torch is imported, and unless the user has chosen."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
