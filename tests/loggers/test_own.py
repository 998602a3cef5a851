"""Several loggers at once, one of the user's own, and the keys of when there was one."""

import shutil
import sys

import pytest
from helpers import ROOT, TINY, composed, rows
from omegaconf import OmegaConf
from wandb_files import told

from ijepa.cli import aliases
from ijepa.config import Loggers, TrainConfig
from ijepa.config.checks import parse
from ijepa.util.errors import UserError

RUN = ("data=digits", *TINY, "schedule=constant", "callbacks.pictures=1")  # fmt: skip
OWN = """
import json
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class Lines(Logger):
    '''A line of JSON for each thing that it is told.'''

    name, version = "lines", ""

    def __init__(self, folder, config: dict, step: int, file: str = "lines.json", mode: str = "w") -> None:
        super().__init__()
        self.path, self.width, self.step = folder / file, config["model"]["width"], step

    def tell(self, *what):
        with self.path.open("a") as file:
            print(json.dumps(what), file=file)

    def begin(self):
        self.tell("begin", self.width, self.step)

    def finish(self, failed):
        self.tell("finish", failed)

    @rank_zero_only
    def log_metrics(self, metrics, step=None):
        self.tell("metrics", step, sorted(metrics))

    def log_picture(self, name, picture, step):
        self.tell("picture", name, picture.size)

    def log_hyperparams(self, *args, **kwargs):
        pass


class NoLogger:
    pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a module and options of the user's own."""
    (tmp_path / "own_logger.py").write_text(OWN)
    options = tmp_path / "own_conf" / "logger"
    options.mkdir(parents=True)
    (options / "lines.yaml").write_text("_target_: own_logger.Lines\nfile: told.json\n")
    (options / "two.yaml").write_text("# @package logger.two\n_target_: own_logger.Lines\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    yield tmp_path
    sys.modules.pop("own_logger", None)


def test_several_at_once(own, invoke):
    folder = own / "run"
    code, _, err = invoke("train.py", "--config-dir", own / "own_conf", "logger=[csv,wandb,tensorboard,lines]", *RUN,
                          "logger.project=painting", "logger.wandb.mode=offline", f"run_dir={folder}")  # fmt: skip
    assert code == 0, err
    run = told(folder)
    assert run.runs[-1].project == "painting"
    assert run.config["logger"]["Lines"] == {"_target_": "own_logger.Lines", "file": "told.json"}
    assert list((folder / "tensorboard").glob("events.*"))
    assert [row["step"] for row in rows(folder)] == ["1", "2", "3"]
    lines = (folder / "told.json").read_text().splitlines()
    assert (lines[0], lines[-1]) == ('["begin", 24, 0]', '["finish", false]')
    assert '["metrics", 1, ["epoch", ' in "\n".join(lines)
    assert any(line.startswith('["picture", "pictures/final/masks"') for line in lines)

    code, _, err = invoke("train.py", f"resume={folder}", "schedule.max_steps=4", "trust=own_logger")
    assert code == 0, err
    assert '["begin", 24, 3]' in (folder / "told.json").read_text()
    code, _, err = invoke("train.py", "--config-dir", own / "own_conf", f"resume={folder}", "schedule.max_steps=5",
                          "logger=[two,tensorboard]")  # fmt: skip
    assert code == 0, err
    assert (folder / "lines.json").read_text().startswith('["begin", 24, 4]')
    assert (folder / "told.json").read_text().count("begin") == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["logger=lines", "+logger.fil=x"], "logger.Lines.fil=x: no such key; own_logger.Lines takes file, mode"),
        (["logger=two", "logger.two._target_=own_logger.NoLogger"],
         "logger.two._target_=own_logger.NoLogger: lacks after_save_checkpoint, "),
        (["logger=two", "logger.two._target_=own_logger.Nothing"], "logger.two._target_=own_logger.Nothing: cannot be"),
        (["logger=csv", "logger.project=x"], "logger.project=x: no such key; "),
        (["logger=tensorboard", "logger.wandb.project=x"], "logger.wandb.project=x: no such key; logger=wandb has it"),
        (["logger.project=x"], "logger.wandb.project=x: no such key; logger=wandb has it"),
        (["logger=[csv,nope]"], "logger=nope: no such option; "),
        (["+logger.foo=3"], "logger.foo=3: no such key; "),
        (["+logger.foo.bar=3"], "logger.foo._target_ is not set"),
        (["logger=null"], "logger=null: takes the name of an option; try csv|tensorboard|wandb"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(own, invoke, arguments, line):
    run = f"run_dir={own / 'run'}"
    code, _, err = invoke("train.py", "--config-dir", own / "own_conf", "data=digits", *TINY, run, *arguments)
    assert code == 2
    assert err.startswith(f"error: {line}")
    assert err.count("\n") == 1


def test_help_shows_the_keys(own, invoke):
    code, out, _ = invoke("train.py", "--config-dir", own / "own_conf", "logger=[wandb,two]", "logger.mode=offline",
                          "--help")  # fmt: skip
    assert code == 0
    for shown in ("logger=csv|tensorboard|wandb", "logger.wandb.mode=offline", "logger.two._target_=own_logger.Lines"):
        assert shown in out


def test_keys_of_one_logger():
    expanded = aliases.upgrade_arguments(
        ["logger=wandb", "logger.project=x", "++logger.tags=[a,b]", "logger.wandb.mode=offline"]
    )
    assert expanded == [
        "logger=wandb",
        "logger.wandb.project=x",
        "++logger.wandb.tags=[a,b]",
        "logger.wandb.mode=offline",
    ]
    for others in (["logger=mine", "logger.mode=w"], ["logger.projector=3", "-m", "data=folder"]):
        assert aliases.upgrade_arguments(others) == others


def test_configurations_of_before():
    """With one logger alone, its keys beside its name."""
    wandb = OmegaConf.to_container(composed("logger=wandb")).get("logger")["wandb"]
    flat = Loggers.model_validate({"name": "wandb", **wandb, "project": "before"})
    assert flat.wandb.project == "before"
    assert flat.model_dump() == {"wandb": {**wandb, "project": "before"}}
    assert Loggers.model_validate({"name": "csv"}).model_dump() == {"csv": {}}
    values = composed()
    assert parse(TrainConfig, values).model_dump()["logger"] == {"csv": {}}
    values.logger = {"name": "wandb", "project": "before"}
    with pytest.raises(UserError, match=r"logger\.wandb\.entity is not set"):
        parse(TrainConfig, values)
    assert parse(TrainConfig, composed("logger=[]")).logger.model_dump() == {}


def test_a_run_of_before_repeats_and_resumes(own, invoke):
    """Its config.yaml has the one logger's keys beside its name."""
    before, file = own / "before", own / "before" / "config.yaml"
    shutil.copytree(ROOT / "tests" / "fixtures" / "run-0.1", before)
    wandb = "".join(f"  {line}\n" for line in (ROOT / "conf/logger/wandb.yaml").read_text().splitlines()[2:])
    file.write_text(file.read_text().replace("  name: csv\n", f"  name: wandb\n{wandb}").replace("online", "disabled"))
    code, _, err = invoke("train.py", "--config-dir", before, "--config-name", "config", "logger.mode=offline",
                          "schedule.max_steps=1", "schedule.warmup_steps=0", f"run_dir={own / 'again'}")  # fmt: skip
    assert code == 0, err
    assert told(own / "again").runs
    code, _, err = invoke("train.py", f"resume={before}", "schedule.max_steps=7")
    assert code == 0, err
