"""Classes of the user's own, by ``_target_``: what is checked, and that a run trains with one."""

import sys

import pytest
from helpers import TINY, rows

from ijepa.config import TrainConfig
from ijepa.config.checks import dotted_keys
from ijepa.config.custom import Custom, instantiate, load_class
from ijepa.masking import Masking
from ijepa.util.errors import ConfigError, UserError

MASKS = """
import numpy as np
import torch
from ijepa.masking import Masks


class Halves:
    '''The left half is the context, the right half the target.'''

    def __init__(self, grid: tuple[int, int], swap: bool = False) -> None:
        numbers = np.arange(grid[0] * grid[1]).reshape(grid)
        halves = numbers[:, : grid[1] // 2].ravel(), numbers[:, grid[1] // 2 :].ravel()
        self.context, self.target = halves[::-1] if swap else halves
        self.context_patches = len(self.context)

    def sample(self, seed, step, positions):
        count = len(positions)
        context, target = (torch.from_numpy(half.copy()).expand(count, -1) for half in (self.context, self.target))
        return Masks(context, target[:, None])


class Nothing:
    def __init__(self, ratio: float) -> None:
        pass


class Fails:
    def __init__(self) -> None:
        raise RuntimeError("no luck\\ntoday")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a module and options of the user's own."""
    (tmp_path / "own_masks.py").write_text(MASKS)
    options = tmp_path / "own_conf" / "masking"
    options.mkdir(parents=True)
    (options / "halves.yaml").write_text("_target_: own_masks.Halves\nswap: true\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_masks", None)


def section(**values):
    return Custom.model_validate({"_target_": "own_masks.Halves", **values})


def test_an_object_of_the_user_s_class(own):
    made = instantiate("masking", section(swap=True), Masking, grid=(2, 4), unused=1)
    assert made.context.tolist() == [2, 3, 6, 7]
    assert Custom.model_validate(section(swap=True).model_dump()) == section(swap=True)
    assert section().name == "own_masks.Halves"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"swop": True}, r"masking.swop=true: no such key; own_masks.Halves takes swap"),
        ({"swap": "perhaps"}, r"masking.swap=perhaps: should be a valid boolean"),
        ({"_target_": "own_masks.Nothing"}, r"masking.ratio is not set; own_masks.Nothing needs it"),
        ({"_target_": "own_masks.Nothing", "ratio": 1},
         r"masking._target_=own_masks.Nothing: lacks context_patches, sample; see docs/extending.md"),
        ({"_target_": "own_masks.Fails"}, r"masking._target_=own_masks.Fails: fails: RuntimeError: no luck$"),
        ({"_target_": "own_masks.None_"}, r"masking._target_=own_masks.None_: cannot be imported: AttributeError: .*"),
        ({"_target_": "no_such_module.Thing"}, r"masking._target_=.*: cannot be imported: ModuleNotFoundError: .*"),
        ({"_target_": "Thing"}, r"masking._target_=Thing: names no class; try package.module.Class"),
    ],
)  # fmt: skip
def test_mistakes_name_the_key(own, values, line):
    with pytest.raises(UserError, match=line):
        instantiate("masking", section(**values), Masking, grid=(2, 4))


def test_what_is_no_class(own):
    with pytest.raises(ConfigError, match=r"key=own_masks.MASKS: cannot be imported"):
        load_class("key", "own_masks.MASKS")
    with pytest.raises(ConfigError, match=r"key=sys.path: is not a class"):
        load_class("key", "sys.path")


def test_annotations_that_are_strings(own):
    (own / "own_masks.py").write_text("from __future__ import annotations\n" + MASKS)
    with pytest.raises(UserError, match=r"masking.swap=perhaps: should be a valid boolean"):
        instantiate("masking", section(swap="perhaps"), Masking, grid=(2, 4))


def test_options_are_suggested():
    assert "masking._target_" in dotted_keys(TrainConfig)
    assert "masking.target" not in dotted_keys(TrainConfig)


def test_a_run_and_its_resume(own, invoke):
    folder = own / "run"
    arguments = [*TINY, "data=digits", "data.batch_size=16", f"run_dir={folder}", "schedule=constant"]
    code, _, err = invoke("train.py", "--config-dir", own / "own_conf", "masking=halves", *arguments)
    assert code == 0, err
    assert "_target_: own_masks.Halves" in (folder / "config.yaml").read_text()
    code, _, err = invoke("train.py", f"resume={folder}", "schedule.max_steps=5", "trust=own_masks")
    assert code == 0, err
    assert [row["step"] for row in rows(folder)] == ["1", "2", "3", "4", "5"]
    changed = ("schedule.max_steps=6", "++masking.swap=false", "trust=own_masks")
    code, _, err = invoke("train.py", f"resume={folder}", *changed)
    assert code == 2
    assert "masking.swap=true would become false" in err


def test_mistakes_on_the_command_line(own, invoke):
    arguments = ["--config-dir", own / "own_conf", "masking=halves", *TINY, "data=digits", f"run_dir={own / 'run'}"]
    code, _, err = invoke("train.py", *arguments, "+masking.swop=true")
    assert (code, err) == (2, "error: masking.swop=true: no such key; own_masks.Halves takes swap\n")
    code, out, _ = invoke("train.py", "--config-dir", own / "own_conf", "masking=halves", "--help")
    assert code == 0
    assert "masking._target_=own_masks.Halves" in out
