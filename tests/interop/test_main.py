"""The commands inspect and convert, and the mistakes of those who type them."""

import subprocess
import sys

import pytest
from helpers import ROOT
from weight_files import convert, saved, spec_of

from ijepa.interop import reading
from ijepa.interop.command import main


def test_inspect(tmp_path, capsys, checkpoint_file):
    file, _ = saved(spec_of("scaled"), tmp_path)
    assert main(["inspect", str(file)]) == 0
    output = capsys.readouterr().out
    for text in ("step         7", "target encoder, context encoder, predictor", "24x40 pixels, 4 channels",
                 "sin-cos, scaled, mapped onto 6x7 patches", "0.1, 0.2, 0.3, 0.4; 0.5, 0.6, 0.7, 0.8"):  # fmt: skip
        assert text in output
    assert main(["inspect", str(checkpoint_file), "--heads", "3"]) == 0
    assert "8x8 patches of 8x8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["inspect", "nowhere.pt"], "file=nowhere.pt: no such file or folder"),
        (["convert", "RUN", "x.txt", "--to", "timm"], "OUT=x.txt: should end in .safetensors, or in .pt"),
        (["convert", "RUN", "x.txt", "--to", "safetensors"], "OUT=x.txt: should end in .safetensors"),
        (["convert", "RUN", "RUN", "--to", "onnx"], "exists; add --overwrite"),
        (["convert", "RUN", "RUN", "--to", "transformers"], "transformers needs a folder"),
        (["convert", "RUN", ".", "--to", "meta"], "is a folder; give a file in it"),
        (["convert", "RUN", "x", "--to", "keras"], "invalid choice: 'keras'"),
        (["convert", "RUN"], "required: OUT, --to"),
        (["inspect", "RUN", "--heads", "0"], "--heads=0: should be a whole number, 1 or more"),
        (["convert", "ALONE", "x.pth.tar", "--to", "meta"], "has no context and no predictor"),
        (["convert", "ALONE", "x.pth", "--to", "timm", "--encoder", "context"], "contains only the target encoder"),
        ([], "required: inspect|convert"),
    ],
)
def test_mistakes(tmp_path, capsys, monkeypatch, arguments, says):
    file, _ = saved(spec_of("square"), tmp_path)
    convert(file, tmp_path / "alone.safetensors", "--to", "safetensors")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    given = {"RUN": str(file), "ALONE": str(tmp_path / "alone.safetensors")}
    before = sorted(tmp_path.iterdir())
    assert main([given.get(argument, argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_as_a_command(tmp_path):
    file, _ = saved(spec_of("square"), tmp_path)
    result = subprocess.run([sys.executable, "-m", "ijepa.interop", "inspect", file], capture_output=True, text=True,
                            cwd=ROOT, timeout=100)  # fmt: skip
    assert result.returncode == 0
    assert "width 48, 2 blocks, 3 heads" in result.stdout
    assert reading.read(file).facts == {"step": 7}


@pytest.mark.parametrize("to", ["timm", "transformers", "meta", "torch-export", "safetensors"])
def test_places_that_cannot_be_written(tmp_path, to, capsys):
    file, _ = saved(spec_of("square"), tmp_path)
    name = {"timm": "x.pth", "safetensors": "x.safetensors"}.get(to, "x")
    for out in (file / name, f"/proc/nowhere/{name}"):
        assert main(["convert", str(file), str(out), "--to", to]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1


@pytest.mark.slow
def test_nobody_has_to_read_it_all(tmp_path):
    file, _ = saved(spec_of("square"), tmp_path)
    command = [sys.executable, "-m", "ijepa.interop", "inspect", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
