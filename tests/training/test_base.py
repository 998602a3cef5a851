"""What every module of a run shares, seen at one that is not I-JEPA's."""

from collections import Counter

import pytest
import torch
from autoencoder import Autoencoder, wire
from helpers import EXACT, SMALL, assert_same, rows, train_config
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ijepa.distributed import sharding
from ijepa.models.encoder import Encoder
from ijepa.training.protocol import eval_mode
from ijepa.training.schedule import TrainingSchedule

pytestmark = pytest.mark.integration

CONFIG = (*SMALL, "callbacks.health_every_steps=2", "callbacks.health_images=16", "callbacks.pictures=1")


def fit(folder, *overrides, last=None, stop=None):
    run = wire(train_config(*CONFIG, *overrides), folder, 0)
    if stop is not None:
        run.trainer.fit_loop.epoch_loop.max_steps = stop
    run.trainer.fit(run.module, run.data, ckpt_path=last, weights_only=True)
    return run


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_stopped_run_equals_one_that_was_not(tmp_path, precision):
    options = (f"hardware.precision={precision}", "hardware.accumulation=2")
    whole = fit(tmp_path / "whole", *options)
    fit(tmp_path / "cut", *options, stop=2)
    rest = fit(tmp_path / "cut", *options, last=tmp_path / "cut" / "checkpoints" / "last.ckpt")
    assert_same(whole.module.state_dict(), rest.module.state_dict(), **EXACT)
    losses = [[row["train/loss"] for row in rows(tmp_path / name)] for name in ("whole", "cut")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 5  # before the first step, health alone


def test_networks_are_the_children_that_have_parameters():
    module = Autoencoder([8, 8], 1, 4, 3, schedule=None, betas=(0.9, 0.95), eps=1e-8)
    module.loss = nn.MSELoss()
    assert module.networks() == [module.encoder, module.decoder]
    assert module.describe() == [f"{2 * 16 * 3 + 16 + 3} trained parameters"]


def test_a_single_layer_can_compute_in_bf16():
    layer = nn.Linear(4, 2)
    sharding.prepare([layer], bf16=True, checkpointing=True, compiled=False, mesh=None)
    assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize("compiled", [True, "networks"])
def test_blocks_or_whole_networks_are_compiled(compiled, monkeypatch):
    torch.manual_seed(0)
    encoder, images = Encoder((8, 8), 4, 3, 16, 2, 2, 4.0), torch.rand(2, 3, 8, 8)
    expected, compile_module, parts = encoder(images), nn.Module.compile, []

    def fast(module):
        parts.append(module)
        compile_module(module, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", fast)
    sharding.prepare([encoder], bf16=False, checkpointing=False, compiled=compiled, mesh=None)
    assert parts == ([encoder] if compiled == "networks" else list(encoder.blocks))
    torch.testing.assert_close(encoder(images), expected, atol=1e-6, rtol=1e-5)
    encoder(images).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters() if parameter.requires_grad)


def test_selective_checkpointing_multiplies_matrices_once():
    """And recomputes the rest, as the norms of each block."""
    seen = Counter[str]()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            seen[function.overloadpacket.__name__] += 1
            return function(*arguments, **(options or {}))

    counts = {}
    for kind in (False, "selective", True):
        torch.manual_seed(0)
        encoder = Encoder((8, 8), 4, 3, 16, 2, 2, 4.0)
        sharding.prepare([encoder], bf16=False, checkpointing=kind, compiled=False, mesh=None)
        seen.clear()
        with Counting():
            encoder(torch.rand(2, 3, 8, 8)).sum().backward()
        counts[kind] = (seen["addmm"], seen["native_layer_norm"])
    products, norms = counts[False]
    assert counts["selective"] == (products, norms + 4)  # two norms in each of two blocks
    assert counts[True] == (2 * products - 2, norms + 4)  # a block's last result is not needed


def test_a_frozen_network_stays_in_eval_mode():
    module = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with eval_mode(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module] == [True, False]
    assert module.training


def test_a_schedule_without_a_target_encoder_has_no_momentum():
    config = train_config().schedule
    assert TrainingSchedule(10, 1, 0, 1e-3, config).values(0).keys() == {"lr", "weight_decay"}
