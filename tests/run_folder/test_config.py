"""config.yaml of every version, and what is none any more."""

import pytest
from helpers import ROOT, composed, train_config
from omegaconf import OmegaConf

from ijepa.config import TrainConfig
from ijepa.config.checks import parse
from ijepa.run_folder import RunFolder
from ijepa.run_folder.config import VERSION, read_config, version_of, write_config
from ijepa.util.errors import UserError

FIXTURES = ROOT / "tests" / "fixtures"


@pytest.fixture
def written(tmp_path):
    config = train_config("data=digits", "logger=wandb")
    write_config(RunFolder(tmp_path).config, config.model_dump())
    return RunFolder(tmp_path).config, config


def parsed(values):
    return parse(TrainConfig, OmegaConf.masked_copy(values, [key for key in values if key != "defaults"]))


def test_what_is_written_is_read(written):
    file, config = written
    found = parsed(read_config(file))
    assert found.run_dir == str(file.parent)
    assert found.model_copy(update={"run_dir": config.run_dir}) == config
    assert version_of(file.read_text()) == VERSION


def test_its_keys_are_those_of_the_command_line(written, tmp_path):
    """So that Hydra composes it, as its first line says: the version is none of them."""
    file, _ = written
    assert file.read_text().startswith(f"# Repeat: python train.py --config-dir {tmp_path} --config-name config ")
    assert {*OmegaConf.load(file)} - {"defaults", "callback"} == {*composed()}


@pytest.mark.parametrize("header", ["", "# Version: 1\n"])
def test_version_1_gets_the_keys_of_loggers_and_callbacks(written, header):
    """Also a file of today that has lost its comments: its own values stay."""
    file, config = written
    values = OmegaConf.load(file)
    del values.callbacks.pictures, values.logger.wandb.artifacts
    values.callbacks.health_images = 77
    file.write_text(header + OmegaConf.to_yaml(values))
    found = parsed(read_config(file))
    assert found.callbacks == config.callbacks.model_copy(update={"health_images": 77})
    assert found.logger == config.logger


def test_a_run_from_before_there_were_loggers(written):
    file, config = written
    values = OmegaConf.load(file)
    del values.callbacks, values.logger
    file.write_text(OmegaConf.to_yaml(values))
    found = parsed(read_config(file))
    assert found.callbacks == config.callbacks
    assert found.logger.wandb is None
    assert found.logger.tensorboard is None


def test_a_newer_version_is_refused(written):
    file, _ = written
    file.write_text(file.read_text().replace(f"# Version: {VERSION}\n", f"# Version: {VERSION + 1}\n"))
    with pytest.raises(UserError, match=rf"config\.yaml: version {VERSION + 1}, .*; update"):
        read_config(file)


@pytest.mark.parametrize("contents", [b"a: [", b"", b"- 1", b"text", b"data: 1\nseed: 0", b"data: {}", b"\xff\xfe\0"])
def test_what_is_no_configuration_any_more(tmp_path, contents):
    file = RunFolder(tmp_path).config
    file.write_bytes(contents)
    with pytest.raises(UserError, match=r"config\.yaml: not the configuration of a run; restore"):
        read_config(file)


@pytest.mark.parametrize("name", ["run-0.1/config.yaml", "config-2.yaml", "config-3.yaml", "config-4.yaml",
                                  "config-5.yaml"])  # fmt: skip
def test_configurations_of_every_version_are_those_of_today(name):
    """One that fails here cannot be resumed: give a new key a default in the schema, or add a step to UPGRADES.

    A new version gets a file of its own here, as `write_config` writes it.
    """
    file = FIXTURES / name
    assert version_of(file.read_text()) == (1 if name.startswith("run") else int(file.stem.removeprefix("config-")))
    parsed(read_config(file))
    assert (FIXTURES / f"config-{VERSION}.yaml").is_file()


def test_version_4_gets_the_cache_of_images():
    """Of today's size; so a run that has finished is known to be the same."""
    assert parsed(read_config(FIXTURES / "config-4.yaml")).data.cache_mib == train_config().data.cache_mib > 0


def test_a_configuration_that_unfolds_without_limit(tmp_path):
    bomb = ["data: {root: x}", "seed: 0", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)]
    (tmp_path / "config.yaml").write_text("\n".join(bomb))
    with pytest.raises(UserError, match="not the configuration of a run"):
        read_config(tmp_path / "config.yaml")
