"""Many file names in little memory."""

import pytest

from ijepa.data.paths import Paths

NAMES = ["a/b.png", "", "ä/日本.jpg", "x\udcff.png", "y\ud800", "a/b.png"]


def test_a_sequence_of_names():
    paths = Paths(NAMES)
    assert len(paths) == len(NAMES)
    assert list(paths) == NAMES
    assert [paths[index] for index in range(-6, 6)] == NAMES + NAMES
    assert list(paths[1:4]) == NAMES[1:4]
    assert list(paths[::-2]) == NAMES[::-2]
    assert paths.index("ä/日本.jpg") == 2
    assert list(Paths([])) == []
    for index in (6, -7):
        with pytest.raises(IndexError):
            paths[index]
