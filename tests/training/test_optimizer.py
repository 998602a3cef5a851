"""Muon and AdamW as one optimiser."""

from copy import deepcopy

import pytest
import torch
from helpers import EXACT, assert_same, small_encoder
from torch.utils.flop_counter import FlopCounterMode

from ijepa.training import optimizer as optim

OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "fused": False}


def stepped(network, optimizers, steps=3):
    draw = torch.Generator().manual_seed(0)
    for step in range(steps):
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        for optimizer in optimizers:
            optim.set_hyperparameters(optimizer, 1e-2 / (step + 1), 0.1)
            optimizer.step()
    return network.state_dict()


def test_it_is_torch_s_muon_and_adamw(monkeypatch):
    """Once torch's Muon computes in float32 too: the same."""
    muon_of_torch = pytest.importorskip("torch.optim._muon", reason="torch before 2.9 has no Muon")
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
    assert muon_of_torch.DEFAULT_NS_STEPS == optim.ORTHOGONALISATION_STEPS
    torch.manual_seed(0)
    ours, theirs = small_encoder(), small_encoder()
    theirs.load_state_dict(ours.state_dict())
    named = dict(theirs.named_parameters())
    matrices = [p for name, p in named.items() if name.startswith("blocks.") and p.ndim == 2]
    assert len(matrices) == 4 * len(theirs.blocks)
    embedding = named["patch_embed.proj.weight"]
    rest = [p for p in named.values() if p.ndim == 1]
    muon = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([{"params": [embedding]}, {"params": rest, "weight_decay": 0.0}], betas=(0.9, 0.95))
    draw = torch.Generator().manual_seed(0)
    for step in range(3):
        for parameter in theirs.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        for group, decayed in ((muon.param_groups[0], True), *zip(adamw.param_groups, (True, False), strict=True)):
            group["lr"] = 1e-2 / (step + 1)
            group["weight_decay"] = 0.1 if decayed else 0.0
        muon.step()
        adamw.step()
    found = stepped(ours, [optim.MuonAdamW(ours.named_parameters(), **OPTIONS)])
    assert_same(found, theirs.state_dict(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 32)])
def test_orthogonalised(shape, dtype, tolerance):
    """The singular vectors stay, the singular values end near 1."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    orthogonalised = optim.orthogonalised(matrix, dtype)
    assert orthogonalised.dtype == dtype
    rotated = left.T @ orthogonalised.float() @ right.T
    values = rotated.diagonal()
    assert values.min() > 0.65
    assert values.max() < 1.25
    assert (rotated - values.diag()).abs().max() < tolerance


def test_matrices_of_one_shape_are_orthogonalised_together(monkeypatch):
    """In bfloat16, up to a number of elements, as one by one."""
    alone, together = small_encoder(), small_encoder()
    together.load_state_dict(alone.state_dict())
    orthogonalised, shapes = optim.orthogonalised, []
    monkeypatch.setattr(
        optim, "orthogonalised", lambda *args: shapes.append(tuple(args[0].shape)) or orthogonalised(*args)
    )
    blocks, largest = len(alone.blocks), max(p.numel() for n, p in alone.named_parameters() if ".mlp.fc1.weight" in n)
    for elements, network in ((1, alone), ((blocks - 1) * largest, together)):
        monkeypatch.setattr(optim, "STACKED_ELEMENTS", elements)
        network.blocks[0].attn.qkv.weight.requires_grad_(False)
        stepped(network, [optim.MuonAdamW(network.named_parameters(), **OPTIONS, bf16=True)], steps=1)
    singles, stacks = shapes[: 4 * blocks - 1], shapes[4 * blocks - 1 :]
    assert all(len(shape) == 2 for shape in singles)
    assert sum(shape[0] if len(shape) == 3 else 1 for shape in stacks) == 4 * blocks - 1
    assert len(stacks) < len(singles)
    assert all(torch.Size(shape).numel() <= (blocks - 1) * largest for shape in stacks)
    assert_same(alone.state_dict(), together.state_dict(), atol=1e-3, rtol=0)


def test_orthogonalised_stack():
    """As one by one."""
    matrices = torch.randn(3, 24, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([optim.orthogonalised(matrix) for matrix in matrices])
    torch.testing.assert_close(optim.orthogonalised(matrices), expected, atol=1e-5, rtol=1e-5)


def test_its_state_is_saved_and_loaded():
    torch.manual_seed(0)
    network = small_encoder()
    optimizer = optim.MuonAdamW(network.named_parameters(), **OPTIONS)
    stepped(network, [optimizer])
    copy = small_encoder()
    copy.load_state_dict(network.state_dict())
    loaded = optim.MuonAdamW(copy.named_parameters(), **OPTIONS)
    state = deepcopy(optimizer.state_dict())
    state["param_groups"][0] |= {"nesterov": True, "ns_steps": 5, "adjust_lr_fn": "match_rms_adamw"}  # as torch's has
    loaded.load_state_dict(state)
    assert_same(stepped(network, [optimizer]), stepped(copy, [loaded]), **EXACT)


def test_flops_of_orthogonalisation():
    """Those of its matrix products, as torch counts them."""
    network = small_encoder()
    optimizer = optim.MuonAdamW(network.named_parameters(), **OPTIONS)
    with FlopCounterMode(display=False) as counter:
        stepped(network, [optimizer], steps=1)
    assert optim.orthogonalisation_flops(network.named_parameters()) == counter.get_total_flops()
