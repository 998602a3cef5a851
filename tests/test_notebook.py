"""docs/notebook.ipynb: its code runs, at a small size, and its outputs are those of a whole run."""

import json
import re

import matplotlib.pyplot as plt
import pytest
from helpers import ROOT

pytestmark = pytest.mark.slow

NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
SMALL = {
    "schedule.max_steps=400": "schedule.max_steps=3",
    "schedule.warmup_steps=40": "schedule.warmup_steps=1",
    "data.scenes.train=4000": "data.scenes.train=80",
    "data.scenes.val=500": "data.scenes.val=64",
}


def test_every_cell_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: None)
    names, text = {}, "\n\n".join("".join(cell["source"]) for cell in CODE)
    for whole, small in SMALL.items():
        assert whole in text
        text = text.replace(whole, small)
    plt.switch_backend("agg")
    exec(compile(text, "docs/notebook.ipynb", "exec"), names)
    plt.close("all")
    out = capsys.readouterr().out
    assert "80 training images, 3 steps of 64" in out
    assert re.search(r"after +\d+\.\d % of the colours are right", out)
    assert (tmp_path / "runs" / "notebook" / "encoder.safetensors").is_file()


def test_the_outputs_are_those_of_a_run():
    outputs = [cell["outputs"] for cell in CODE]
    assert all(outputs), "a cell has not been run"
    found = [output for cell in outputs for output in cell]
    assert {output["output_type"] for output in found} <= {"stream", "display_data", "execute_result"}
    assert sum("image/png" in output.get("data", {}) for output in found) >= 2
    text = "".join("".join(output.get("text", "")) for output in found)
    before, after = (float(value) for value in re.findall(r"(\d+\.\d) % of the colours", text))
    assert after > before
    assert "/" not in re.sub(r"runs/notebook|images/s", "", text), "paths of a machine"
