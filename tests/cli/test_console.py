"""The console command `ijepa`; tests/test_wheel.py runs each of its commands where the package is installed."""

import subprocess
import sys

import pytest
from helpers import ROOT

from ijepa import __main__ as console
from ijepa.util import commands


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["ijepa", *arguments])
    code = console.main()
    return code, *capsys.readouterr()


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"], ["-h"]])
def test_help_lists_every_command(monkeypatch, capsys, arguments):
    code, output, error = run(monkeypatch, capsys, *arguments)
    assert code == 0
    assert not error
    assert all(f"  {name} " in output for name in console.COMMANDS)


@pytest.mark.parametrize(("name", "hint"), [("trian", "did you mean train?"), ("xyz", "try train, evaluate, ")])
def test_an_unknown_command_is_one_line(monkeypatch, capsys, name, hint):
    code, output, error = run(monkeypatch, capsys, name)
    assert code == 2
    assert not output
    assert error.startswith(f"error: {name}: no such command; {hint}")
    assert error.count("\n") == 1


@pytest.mark.integration
def test_the_list_of_commands_needs_no_torch():
    check = "import sys, ijepa.__main__ as c; c.main(); assert not {'torch', 'hydra'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", check, "help"], cwd=ROOT, check=True, capture_output=True, timeout=60)


def test_messages_name_commands_as_they_were_started(monkeypatch):
    assert set(commands.IN_CHECKOUT) == set(console.COMMANDS)
    monkeypatch.delenv(commands.CONSOLE_VARIABLE, raising=False)
    assert commands.command_line("train") == "python train.py"
    monkeypatch.setenv(commands.CONSOLE_VARIABLE, "1")
    assert commands.command_line("train") == "ijepa train"
