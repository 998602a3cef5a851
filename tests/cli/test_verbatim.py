"""Values of text keys are what was typed."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ijepa.cli import entry
from ijepa.cli.verbatim import is_text, quote_texts
from ijepa.config import COMBINED, EvaluateConfig, TrainConfig

GROUPS = {*COMBINED, "data", "model", "experiment"}
TYPED = ["2026_11_28", "1.10", "1e3", "true", "~/imgs", "a (1)", "a#b", "größe/猫", "a,b", "a b", "it's", "x='y'",
         "[a]", "{a}", "a=b", "back\\slash", "ends\\", "$HOME/x", "a:b", "0x10", "%d", "'", '"', "-1"]  # fmt: skip


def parsed(argument):
    (override,) = OverridesParser.create().parse_overrides([argument])
    return override


@pytest.mark.parametrize("value", TYPED)
@pytest.mark.parametrize("key", ["run_dir", "data.root", "data.labels", "logger.wandb.project", "+data.root"])
def test_a_text_key_takes_what_was_typed(key, value):
    (argument,) = quote_texts([f"{key}={value}"], TrainConfig, GROUPS, multirun=False)
    found = parsed(argument).value()
    assert getattr(found, "text", found) == value
    assert type(getattr(found, "text", found)) is str


@pytest.mark.parametrize(
    ("argument", "value"),
    [("run_dir='a b'", "a b"), ('run_dir="1"', "1"), ("resume=null", None), ("run_dir=${seed}", "${seed}"),
     ("run_dir=", "")],
)  # fmt: skip
def test_quotes_nothing_and_references_are_hydra_s(argument, value):
    (found,) = quote_texts([argument], TrainConfig, GROUPS, multirun=False)
    assert found == argument
    found = parsed(found).value()
    assert getattr(found, "text", found) == value


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("data.root=a (1),~/b", "data.root='a (1)','~/b'"),
        ("data.root='a,b',c", "data.root='a,b','c'"),
        ("data.root=choice(a,b)", "data.root=choice(a,b)"),
        ("run_dir=2026_11_28", "run_dir='2026_11_28'"),
        ("seed=1,2", "seed=1,2"),
        ("data=2024,mine", "data='2024',mine"),
        ("task=[knn,logistic]", "task=[knn,logistic]"),
        ("-m", "-m"),
        ("run_dir=${oc.env:NOPE,/tmp/r}", "run_dir=${oc.env:NOPE,/tmp/r}"),
        ("data.root=a\\,b", "data.root=a\\,b"),
    ],
)
def test_sweeps(typed, expected):
    assert quote_texts([typed], TrainConfig, GROUPS, multirun=True) == [expected]


def test_a_sweep_without_m():
    """By an option of sweep=, or by Hydra's own key."""
    for starts in ("sweep=lr", "hydra.mode=MULTIRUN"):
        assert entry._starts_sweep(["seed=1", starts])
    assert not entry._starts_sweep(["run_dir=sweep=lr"])


def test_which_keys_are_text():
    texts = ["run_dir", "resume", "init", "data.root", "data.source", "logger.wandb.project", "task.retrieval.query"]
    others = ["seed", "optimizer.lr", "hardware.precision", "logger.wandb.mode", "nothing", "data.nothing", "data",
              "task.mine.anything"]  # fmt: skip
    assert [key for key in [*texts, *others] if is_text(TrainConfig, key.split("."))] == texts
    assert is_text(EvaluateConfig, ["checkpoint"])
