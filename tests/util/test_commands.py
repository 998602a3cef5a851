"""Commands that are printed can be pasted."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from helpers import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ijepa.cli.verbatim import quote_texts
from ijepa.config import COMBINED, TrainConfig
from ijepa.interop import command as interop
from ijepa.report import command as report
from ijepa.util import commands
from ijepa.util.commands import Parser, run
from ijepa.util.errors import TOO_DEEP

PATHS = ["runs/2026-11-28", "a b", "it's", 'say "hi"', "'quoted'", "null", "NULL", "???", "x${y}z", "${seed}", "$HOME",
         "~/a", "a#b", "a;rm -rf b", "a,b", "[a]", "a=b", "Größe/猫", " lead", "trail ", "two\nlines", "tab\t",
         "back\\slash",         "ends\\", "byte\udcff", "a\\\nb'c", "100%", "!x", "\\${y}"]  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("path", PATHS)
def test_a_path_comes_through_the_shell_and_hydra(path):
    line = commands.override("run_dir", path)
    assert line.isprintable()
    script = f"printf '%s\\0' {line} {commands.typed(path)}"
    found = subprocess.run(["bash", "-c", os.fsencode(script)], capture_output=True, check=True).stdout
    argument, word, _ = os.fsdecode(found).split("\0")
    assert word == path
    overrides = quote_texts([argument], TrainConfig, {*COMBINED, "data"}, multirun=False)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("train", overrides)
    assert OmegaConf.to_container(composed, resolve=True)["run_dir"] == path


def test_plain_paths_stay_as_they_are():
    assert commands.override("resume", "runs/a-1_b.c") == "resume=runs/a-1_b.c"


def test_nesting_without_limit_is_one_line(capsys):
    def nested(_):
        raise RecursionError

    assert run(Parser(prog="test"), nested, []) == 2
    assert capsys.readouterr().err == f"error: {TOO_DEEP}\n"


@pytest.mark.parametrize("main", [report.main, interop.main])
def test_a_path_in_advice_can_be_pasted(tmp_path, capsys, main):
    folder = tmp_path / "it's a; folder"
    folder.mkdir()
    arguments = ["convert", str(tmp_path), str(folder), "--to", "meta"]
    assert main(arguments if main is interop.main else [str(tmp_path), "--out", str(folder)]) == 2
    advice = capsys.readouterr().err.strip().partition(", e.g. ")[2]
    (path,) = shlex.split(advice)
    assert Path(path).parent == folder
