"""Which images are held out for health."""

import numpy as np

from ijepa.data.heldout import heldout_indices


class Listed:
    def __init__(self, **labels):
        self.labels = labels

    def __len__(self):
        return len(next(iter(self.labels.values())))


def test_heldout_images_are_spread_and_have_company():
    few = np.repeat(np.arange(10), 50)
    chosen = heldout_indices(Listed(label=few), 100)
    assert len(chosen) == 100 == len(set(chosen))
    assert chosen == sorted(chosen)
    assert np.bincount(few[chosen]).min() >= 9
    many = np.repeat(np.arange(1000), 50)
    chosen = heldout_indices(Listed(label=many), 256)
    counts = np.bincount(many[chosen], minlength=1000)
    assert len(chosen) == 256
    assert set(counts) == {0, 16}
    assert np.diff(np.flatnonzero(counts)).max() <= 125  # of all parts of the list of classes
    rare = np.repeat(np.arange(1000), 3)
    assert set(np.bincount(rare[heldout_indices(Listed(label=rare), 256)], minlength=1000)) <= {0, 1, 3}
    assert heldout_indices(Listed(label=few[:7]), 256) == list(range(7))


def test_images_without_a_label_fill_up():
    labels = np.full(10_000, -1)
    labels[::200] = np.arange(50)
    chosen = heldout_indices(Listed(label=labels), 256)
    assert len(chosen) == len(set(chosen)) == 256
    assert set(np.flatnonzero(labels >= 0)) <= set(chosen)
