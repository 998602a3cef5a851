"""How long threads spin while they wait."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT

from ijepa.util import threads


@pytest.mark.parametrize("chosen", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}, {}])
def test_the_users_choice_is_kept(monkeypatch, chosen):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    threads.limit_openmp_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == (chosen or {"GOMP_SPINCOUNT": threads.SPINS}).get("GOMP_SPINCOUNT")


@pytest.mark.integration
def test_it_reaches_openmp():
    """Set before torch is imported: libgomp reads it once."""
    program = "from ijepa.cli import train; train.threads.limit_openmp_spinning(); import torch"
    environment = {**os.environ, "OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": str(ROOT)}
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        environment.pop(name, None)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment).stderr
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("this torch has another OpenMP")
    assert f"GOMP_SPINCOUNT = '{threads.SPINS}'" in said
