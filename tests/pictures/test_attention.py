"""Pictures of attention."""

import numpy as np
import torch
from figures import rows_of, titles

from ijepa import pictures


def test_attention_maps_show_what_is_received_and_what_a_patch_draws_on():
    weights = torch.rand(2, 3, 6, 6).softmax(dim=-1)
    figure = pictures.attention(torch.rand(2, 3, 4, 6), weights, (2, 3), (1, 0), heads=2)
    assert titles(figure) == ["image", "all heads", "head 1", "head 2", "from patch"]
    for image, row in enumerate(rows_of(figure)[:2]):
        found = [np.asarray(axes.get_images()[0].get_array()).ravel() for axes in row[1:]]
        each = 6 * weights[image].numpy()
        assert np.allclose(found[0], each.mean(axis=(0, 1)), atol=1e-5)
        assert np.allclose(found[0].mean(), 1, atol=1e-5)  # uniform
        assert np.allclose(found[2], each[1].mean(axis=0), atol=1e-5)
        assert np.allclose(found[3], each[:, 3].mean(axis=0), atol=1e-5)
    alone = pictures.attention(torch.rand(1, 3, 4, 4), torch.ones(1, 1, 1, 1), (1, 1), (0, 0), heads=4)
    assert titles(alone) == ["image", "all heads", "head 1", "from patch"]
