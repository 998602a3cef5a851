"""The curves of a page."""

import numpy as np

from ijepa.report import curves


def test_a_long_run_keeps_its_extremes():
    values = [float(np.sin(i / 50)) for i in range(100_000)]
    values[40_321], values[77_777] = 9.0, float("nan")
    kept = curves._thinned(values)
    assert len(kept) < 2 * curves.POINTS
    assert {0, 40_321, 77_777, 99_999} <= set(kept)
