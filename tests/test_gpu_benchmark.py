"""The prepared benchmark for GPUs, as far as a CPU can run it."""

import re

import pytest
import torch

from benchmarks import gpu


@pytest.mark.integration
def test_its_parts_run_and_the_table_is_kept(tmp_path, capsys):
    table = gpu.Table(tmp_path / "gpu.md", "2026-01-01, a chip")
    cpu = torch.device("cpu")
    for rows in (gpu.steps(cpu, gpu.TINY), gpu.memory(cpu, True), gpu.delivered(True)):
        for row in rows:
            table.add(*row)
    lines = (tmp_path / "gpu.md").read_text().splitlines()
    assert lines[0] == "2026-01-01, a chip"
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| step", *["| memory"] * 3, *["| input"] * 2]
    assert re.search(r"default, batch 2 \| \d+ images/s, [\d.e-]+ TFLOP/s, \d+ % of the matrix rate", lines[4])
    assert "checkpointing=True" in lines[6]
    assert "checkpointing=selective" in lines[7]


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu"])
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit, match="there is no GPU; try --tiny"):
        gpu.main()
