"""The pictures of a page."""

import numpy as np
from report_folders import png, write

from ijepa.report import pictures as report_pictures


def test_wide_pictures_are_scaled_down(tmp_path):
    write(tmp_path / "pictures" / "wide.png", png(4800, 10))
    [[picture], notes] = report_pictures.pictures(tmp_path)
    assert (picture.width, picture.height, notes) == (2400, 5, [])


def test_many_pictures_are_thinned(tmp_path):
    for step in range(100):
        write(tmp_path / "pictures" / "often" / f"step-{step:06}.png", png())
    write(tmp_path / "pictures" / "once.png", png())
    found, [note] = report_pictures.pictures(tmp_path)
    steps = [picture.step for picture in found if picture.name == "often"]
    assert len(found) == 60
    assert (steps[0], steps[-1]) == (0, 99)
    assert max(np.diff(steps)) <= 2
    assert note == "41 of 101 pictures were left out; a page shows at most 60 per run"
