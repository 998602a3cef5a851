"""Files are written whole or not at all."""

import argparse
import errno
import shutil

import pytest
import torch

from ijepa.util import files


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: argparse.Namespace(free=0))

    def full(*args, **kwargs):
        raise RuntimeError("unexpected pos 12 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left on device.*x\.pth") as caught:
        files.write_pickle(tmp_path / "x.pth", {})
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())
