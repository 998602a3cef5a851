"""Numbers and names in words."""

from ijepa.report import text


def test_numbers():
    given = [0.43336, 19200.0, 3.748e12, 1e-6, -0.5, None, float("nan"), 13.3518, 0.0]
    assert [text.number(value) for value in given] == [
        "0.433", "19,200", "3.75 × 10¹²", "10⁻⁶", "−0.500", "–", "not finite", "13.4", "0",
    ]  # fmt: skip
    seconds = [4.21, 33.7, 725, 12000, 190000]
    assert [text.duration(value) for value in seconds] == ["4.2 s", "34 s", "12 min 5 s", "3 h 20 min", "2 d 4 h"]
