"""What a command does before it works: imports that take seconds are announced, or left out."""

import gc
import subprocess
import sys

import pytest
from helpers import ROOT

from ijepa.cli.loading import loading

HEAVY = ("torch", "lightning", "scipy", "sklearn", "matplotlib", "wandb")


@pytest.mark.integration
@pytest.mark.parametrize("arguments", [["--help"], ["model.widht=3"]])
def test_help_and_misspelt_keys_load_nothing_heavy(arguments):
    code = (
        "import runpy, sys\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_loading_is_announced_once_and_by_one_process(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "torch")
    for rank, said in (("1", ""), ("0", "loading torch ...\n")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with loading("torch"):
            pass
        assert capsys.readouterr().out == said
    monkeypatch.undo()
    with loading("torch"):
        pass
    assert capsys.readouterr().out == ""


def test_garbage_is_looked_for_again_after_imports(monkeypatch):
    """And only the imports' own objects are left out: in a sweep, each run is loaded by the same process."""
    frozen = gc.get_freeze_count()
    with loading("torch"):
        assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen  # of frozen objects, some may have ended
    monkeypatch.delitem(sys.modules, "torch")
    try:
        with loading("torch"):
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
