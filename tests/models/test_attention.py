"""Attention weights."""

import pytest
import torch

from ijepa.models.attention import attention_weights
from ijepa.models.encoder import Encoder


def encoder(heads=4):
    network = Encoder((8, 12), 2, 3, 16, 3, heads, 2.0).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.8)  # initial weights attend to everything alike
    return network


@pytest.mark.parametrize("block", [-1, 0, 1])
def test_attention_is_timm_s(block):
    network, images = encoder(), torch.randn(2, 3, 8, 12)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = attention_weights(network, images, block)
    assert found.shape == (2, 4, 24, 24)
    assert torch.allclose(found.sum(dim=-1), torch.ones(2, 4, 24), atol=1e-5)
    assert found.std() > 0.01
    seen = []
    layer = network.blocks[block].attn
    layer.fused_attn = False
    layer.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    network(images)
    torch.testing.assert_close(found, seen[0], atol=1e-6, rtol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
