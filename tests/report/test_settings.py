"""What differs between configurations."""

from ijepa.report import settings


def test_differences():
    one = {"a": 1, "b": {"c": [1, 2], "d": None}, "run_dir": "x"}
    two = {"a": 1, "b": {"c": [1, 3], "d": {"e": True}}, "run_dir": "y"}
    assert settings.differences([one, two]) == [("b.c", ["[1,2]", "[1,3]"]), ("b.d.e", [None, "true"])]
    assert settings.differences([one, one]) == []
