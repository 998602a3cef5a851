"""A short part of the hostile tries, with fixed numbers; `make chaos` has the long one."""

import os

import pytest

from chaos import __main__ as chaos
from chaos import commands, configs, files, stops, texts


@pytest.mark.parametrize("seed", range(60))
def test_configurations(seed, tmp_path):
    configs.case(seed, tmp_path)


@pytest.mark.parametrize("seed", range(10))
def test_damaged_pictures(seed, tmp_path):
    for part in range(20):
        files.picture_case(1000 * seed + part, tmp_path)


@pytest.mark.parametrize("seed", range(30))
def test_damaged_weights(seed, tmp_path):
    files.weight_case(seed, tmp_path)


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(36))
def test_damaged_texts(seed, tmp_path):
    texts.case(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", [stops.kill_case, stops.signal_case, stops.disk_case, commands.case])
def test_stops(case, tmp_path):
    case(0, tmp_path)


@pytest.mark.integration
def test_a_try_that_kills_its_process_is_a_failure_with_its_command(tmp_path, monkeypatch, capsys):
    def case(seed, folder):
        if seed == 1:
            os.abort()
        assert seed != 2

    monkeypatch.setitem(chaos.CAMPAIGNS, "pictures", (case, 5, 3))
    file = tmp_path / "chaos.csv"
    assert chaos.run("pictures", list(range(5)), file) == 2
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{outcome}: PYTHONPATH=tests python -m chaos pictures {seed} 1"
                    for outcome, seed in (("died", 1), ("failed", 2))]  # fmt: skip
    assert chaos.passed(file) == {("pictures", seed) for seed in (0, 3, 4)}
