"""How the threads of a CPU wait for each other."""

import os

SPINS = "3000"
"""How often a waiting thread polls before it sleeps. With libgomp's own 300,000 it keeps a core from the thread that it
waits for, if another process is busy, too. Measured in docs/faults.md."""


def limit_openmp_spinning() -> None:
    """For this process and those that it starts; before torch is imported, and unless the user has chosen."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
