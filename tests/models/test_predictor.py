"""The predictor: padding, and blocks that do not see each other."""

import pytest
import torch
from helpers import small_encoder

from ijepa.models.predictor import Predictor
from ijepa.models.transformer import write_out_attention


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("attention", ["joint", "cross"])
def test_padding_changes_nothing(attention, fused):
    network = small_encoder()
    predictor = Predictor(24, 24, (3, 5), 12, 2, 3, attention=attention)
    for part in () if fused else (network, predictor):
        write_out_attention(part)
    images = torch.randn(1, 5, 24, 40)
    indices, targets = torch.tensor([[2, 5, 9]]), torch.tensor([[[0, 1], [11, 12]]])
    padded = torch.tensor([[2, 5, 9, 0, 0]])
    valid = torch.tensor([[True, True, True, False, False]])
    context, longer = network(images, indices), network(images, padded, valid)
    torch.testing.assert_close(longer[:, :3], context, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        predictor(longer, padded, targets, valid), predictor(context, indices, targets), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("attention", ["joint", "cross"])
def test_attention_that_is_written_out_is_the_same(attention):
    predictor = Predictor(24, 24, (3, 5), 12, 2, 3, init="xavier", attention=attention)
    context, indices = torch.randn(1, 3, 24), torch.tensor([[2, 5, 9]])
    targets, valid = torch.tensor([[[0, 1], [11, 12]]]), torch.tensor([[True, False, True]])
    fused = predictor(context, indices, targets, valid)
    write_out_attention(predictor)
    torch.testing.assert_close(predictor(context, indices, targets, valid), fused, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("attention", ["joint", "cross"])
def test_each_block_is_predicted_on_its_own(attention):
    network, predictor = small_encoder(), Predictor(24, 24, (3, 5), 12, 2, 3, attention=attention)
    indices, targets = torch.tensor([[2, 5, 9]]), torch.tensor([[[0, 1], [11, 12], [3, 4]]])
    context = network(torch.randn(1, 5, 24, 40), indices)
    together = predictor(context, indices, targets)
    assert together.shape == (1, 3, 2, 24)
    for block in range(3):
        alone = predictor(context, indices, targets[:, block : block + 1])
        torch.testing.assert_close(alone[:, 0], together[:, block], atol=1e-6, rtol=0)


def test_queries_do_not_see_each_other_in_cross_attention():
    """So a patch's prediction is the same alone; with joint attention, it depends on the block's other patches."""
    network = small_encoder()
    indices, targets = torch.tensor([[2, 5, 9]]), torch.tensor([[[0, 1, 11]]])
    context = network(torch.randn(1, 5, 24, 40), indices)
    for attention, independent in (("cross", True), ("joint", False)):
        predictor = Predictor(24, 24, (3, 5), 12, 2, 3, init="xavier", attention=attention)
        together, alone = (predictor(context, indices, chosen)[:, :, 0] for chosen in (targets, targets[..., :1]))
        assert torch.allclose(together, alone, atol=1e-5) is independent
