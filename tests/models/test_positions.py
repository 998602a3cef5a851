"""Positions, written out by hand."""

import math

import torch

from ijepa.models.positions import sincos_2d


def by_hand(width, row, column):
    """The vector of one patch, written out."""
    quarter = width // 4
    vector = []
    for coordinate in (column, row):
        angles = [coordinate / 10000 ** (i / quarter) for i in range(quarter)]
        vector += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return torch.tensor(vector)


def test_positions_of_a_grid_that_is_not_square():
    table = sincos_2d(16, (3, 5))
    assert table.shape == (15, 16)
    for row in range(3):
        for column in range(5):
            torch.testing.assert_close(table[row * 5 + column], by_hand(16, row, column), atol=1e-6, rtol=0)


def test_scaled_positions_map_patch_centres_onto_the_grid_of_pretraining():
    table = sincos_2d(16, (6, 5), reference=(3, 10))
    for row, column in ((0, 0), (5, 4), (2, 3)):
        expected = by_hand(16, (row + 0.5) / 2 - 0.5, (column + 0.5) * 2 - 0.5)
        torch.testing.assert_close(table[row * 5 + column], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(sincos_2d(16, (3, 5), reference=(3, 5)), sincos_2d(16, (3, 5)), atol=1e-6, rtol=0)
