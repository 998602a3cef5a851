"""What samplers share."""

import numpy as np

from ijepa.masking import common


def test_patches_with_equal_random_numbers_are_still_chosen_once(monkeypatch):
    few = np.random.default_rng(0).integers(0, 3, (50, 8)).astype(np.uint64)
    monkeypatch.setattr(common, "words", lambda *_: few * np.uint64(0x0000000100000001))
    allowed = np.random.default_rng(1).random((50, 16)) < 0.7
    chosen = common.draw_patches(allowed, 5, 0, 0, 0, np.arange(50))
    assert (np.diff(chosen, axis=1) > 0).all()
    assert np.take_along_axis(allowed, chosen, 1).all()
