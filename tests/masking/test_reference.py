"""The reference implementation's masks, with their faults."""

import numpy as np
from mask_checks import PAPER, grids_of, mirrored_difference

from ijepa.masking import Reference


def test_the_reference_is_not_symmetric():
    """The test above can fail: the faults that it looks for are there in the reference's masks."""
    sampler = Reference((14, 14), **PAPER, min_keep=10)
    context, targets = np.zeros((14, 14)), np.zeros((14, 14))
    for step in range(8):
        seen = grids_of(sampler.sample(1, step, np.arange(64)), 196)
        context += seen[0].numpy().sum(0).reshape(14, 14)
        targets += (seen[1] > 0).numpy().sum(0).reshape(14, 14)
    assert targets[-1].max() == targets[:, -1].max() == 0
    assert context[-1].max() == context[:, -1].max() == 0
    assert mirrored_difference((context[:13, :13], 512), 0) > 5.3
