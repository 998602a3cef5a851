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


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "predict.py"])
def test_it_reaches_openmp(tmp_path, script):
    """Set before torch is imported, since libgomp reads it once; here until the missing images are refused."""
    arguments = [f"data.root={tmp_path / 'none'}", *(["data=folder"] if script == "train.py" else [])]
    arguments += [] if script == "train.py" else [f"checkpoint={tmp_path / 'none'}"]
    environment = {**os.environ, "OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": str(ROOT)}
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        environment.pop(name, None)
    command = [sys.executable, str(ROOT / script), *arguments]
    said = subprocess.run(command, capture_output=True, text=True, env=environment).stderr
    assert "error: " in said
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("this torch has another OpenMP")
    assert f"GOMP_SPINCOUNT = '{threads.SPINS}'" in said
