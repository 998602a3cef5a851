"""Between two rows of metrics no code reads a value from the device: on a GPU the CPU would wait for all work."""

import traceback
from pathlib import Path

import pytest
import torch
from helpers import SMALL, train_config
from torch.utils._python_dispatch import TorchDispatchMode

import ijepa
from ijepa.run import build
from ijepa.training import optimizer as optim

READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.nonzero.default,
}
"""What a CPU waits for: values (`item`, `bool`, `int`), and sizes that depend on values."""
COPIES = ("tolist", "cpu", "numpy")
"""Methods of tensors that copy from the device."""
FOLDER = str(Path(ijepa.__file__).parent)
ON_CPU_ONLY = {"if not skipped:"}
"""Reads in branches for tensors on the CPU."""


class Reads(TorchDispatchMode):
    """Notes where values are read, by the step in which they are."""

    def __init__(self, trainer):
        super().__init__()
        self.trainer, self.found = trainer, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masked = func is torch.ops.aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        if func in READS or masked:
            self.note()
        return func(*args, **(kwargs or {}))

    def note(self):
        """A read, with the innermost frame in ijepa, unless that is about data, which are on the CPU."""
        frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(FOLDER)]
        if frames and "/data/" not in frames[-1].filename and frames[-1].line not in ON_CPU_ONLY:
            self.found.append((self.trainer.global_step, f"{frames[-1].name}: {frames[-1].line}"))


@pytest.mark.integration
@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer.clip_grad_norm=1", "hardware.precision=bf16-mixed"],
        ["experiment=small_images", "objective.target_depths=[0,2]"],
        ["objective=variance_covariance", "hardware.accumulation=1"],
    ],
)
def test_steps_between_rows_read_nothing(tmp_path, monkeypatch, overrides):
    made = optim.adamw  # as for a GPU: fused, so that the device decides which steps are skipped
    monkeypatch.setattr(optim, "adamw", lambda *arguments: made(*arguments[:4], True))
    build_muon = optim.MuonAdamW
    monkeypatch.setattr(optim, "MuonAdamW", lambda *arguments, bf16: build_muon(*arguments[:4], True, bf16))
    run = build.run(train_config(*SMALL, "callbacks.log_every_steps=5", "schedule.max_steps=9", *overrides), tmp_path)
    reads = Reads(run.trainer)
    for name in COPIES:
        plain = getattr(torch.Tensor, name)

        def noting(tensor, *arguments, plain=plain, **options):
            reads.note()
            return plain(tensor, *arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, noting)
    with reads:
        run.trainer.fit(run.module, run.data)
    assert {step for step, _ in reads.found} >= {5, 9}  # rows: the test sees reads
    assert [read for read in reads.found if read[0] in (2, 3, 4, 6, 7, 8)] == []
