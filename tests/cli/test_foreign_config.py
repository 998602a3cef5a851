"""A run's configuration from elsewhere, given by --config-dir and --config-name: data, as when it is resumed."""

import pytest
from helpers import train_config
from omegaconf import OmegaConf

from ijepa.config.trust import typed_trust
from ijepa.run import runs
from ijepa.run_folder import RunFolder
from ijepa.run_folder.config import write_config

EVIL = {"_target_": "evil_module.Evil"}


@pytest.fixture
def foreign(tmp_path):
    """A run's configuration with other values; ``copied``: without its comments, beside the run's metrics."""

    def write(copied=False, **changes):
        file = RunFolder(tmp_path).config
        write_config(file, train_config("data=digits").model_dump(by_alias=True))
        header = "".join(line for line in file.read_text().splitlines(keepends=True) if line.startswith("# "))
        values = OmegaConf.create(file.read_text())
        for key, value in changes.items():
            OmegaConf.update(values, key, value, merge=False, force_add=True)
        if copied:
            (tmp_path / "metrics.csv").write_text("step\n")
        file.write_text(("" if copied else header) + OmegaConf.to_yaml(values))
        return ["--config-dir", tmp_path, "--config-name", "config", "run_dir=NEW"]

    return write


@pytest.fixture
def started(monkeypatch):
    """The configurations that a command would have started."""
    found = []
    monkeypatch.setattr(runs, "train", lambda composed: found.append(OmegaConf.to_container(composed, resolve=True)))
    return found


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(
    "section", [{"masking": EVIL}, {"callback": {"x": EVIL}}, {"data": {"source": "evil_module.f"}}]
)
def test_its_classes_need_trust(foreign, invoke, started, section, copied):
    repeat = foreign(copied, **section, trust=["evil_module"])
    code, _, error = invoke("train.py", *repeat)
    assert (code, started) == (2, [])
    assert error.count("\n") == 1
    assert error.endswith("add trust=evil_module\n")
    assert invoke("train.py", *repeat, "trust=other", "-m", "seed=1,2")[0] == 2
    for trust in ("trust=evil_module", "trust=[other,evil_module]"):
        code, _, error = invoke("train.py", *repeat, trust)
        assert (code, error) == (0, "")
    assert len(started) == 2


@pytest.mark.parametrize("copied", [False, True])
def test_it_refers_to_nothing(foreign, invoke, started, monkeypatch, copied):
    monkeypatch.setenv("MY_SECRET", "hunter2")
    repeat = foreign(copied, metric="${oc.env:MY_SECRET}", logger={"name": "${oc.env:MY_SECRET}"})
    code, _, error = invoke("train.py", *repeat)
    assert code == 0, error
    assert started[0]["metric"] == "${oc.env:MY_SECRET}"
    assert "hunter2" not in str(started)


@pytest.mark.parametrize(
    "change",
    [{"hydra": {"searchpath": ["pkg://evil_module"]}}, {"defaults": ["hydra_setup", "masking: evil", "_self_"]}],
)
def test_it_does_not_choose_what_hydra_reads(foreign, invoke, started, change, tmp_path):
    code, _, error = invoke("train.py", *foreign(**change))
    assert (code, started) == (2, [])
    assert error.startswith(
        f"error: {tmp_path / 'config.yaml'}: the configuration of a run, but its {next(iter(change))} "
    )
    assert error.count("\n") == 1


def test_other_files_of_its_folder_are_foreign_too(foreign, invoke, started, tmp_path):
    repeat = foreign(copied=True)
    (tmp_path / "callback").mkdir()
    (tmp_path / "callback" / "evil.yaml").write_text("x: {_target_: evil_module.Evil}")
    code, _, error = invoke("train.py", *repeat, "+callback=evil")
    assert (code, started) == (2, [])
    assert "add trust=evil_module" in error


def test_a_configuration_of_one_s_own_is_code(invoke, started, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_VALUE", "headline")
    (tmp_path / "mine.yaml").write_text(
        "defaults: [train, _self_]\nmetric: ${oc.env:MY_VALUE}\ncallback: {x: {_target_: my_module.Mine}}\n"
    )
    code, _, error = invoke("train.py", "--config-dir", tmp_path, "--config-name", "mine", "data=digits")
    assert (code, error) == (0, "")
    assert started[0]["metric"] == "headline"


def test_the_printed_command_allows_the_run_s_own_packages(tmp_path):
    config = train_config("++objective.terms={mine: {_target_: mine.Term}}")
    write_config(RunFolder(tmp_path).config, config.model_dump(), typed_trust(config))
    assert RunFolder(tmp_path).config.read_text().splitlines()[0].endswith(" run_dir=NEW trust=mine")
