"""Values of text keys are what was typed."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ijepa.cli import entry
from ijepa.cli.verbatim import is_text, quote_texts
from ijepa.config import COMBINED, EvaluateConfig, PredictConfig, TrainConfig

GROUPS = {*COMBINED, "data", "model", "experiment"}
TYPED = ["2026_11_28", "1.10", "1e3", "true", "~/imgs", "a (1)", "a#b", "größe/猫", "a,b", "a b", "it's", "x='y'",
         "[a]", "{a}", "a=b", "back\\slash", "ends\\", "$HOME/x", "a:b", "0x10", "%d", "'", '"', "-1",
         "'a' and 'b'", '"a" or "b"', "'a\\'", "'a\""]  # fmt: skip


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


LISTS = ["logger.wandb.tags", "task.lowshot.lists", "task.linear.labels", "trust"]


@pytest.mark.parametrize("key", LISTS)
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("[2026_11_28,1.10,1e3]", ["2026_11_28", "1.10", "1e3"]),
        ("[2024_01]", ["2024_01"]),
        ("[~/a (1).txt, b]", ["~/a (1).txt", "b"]),
        ("[null,true,a=b,{c},it's,[d]x,a: b]", ["null", "true", "a=b", "{c}", "it's", "[d]x", "a: b"]),
        ("['a, b', \"c],d\" ,e]", ["a, b", "c],d", "e"]),
        ("['a' and 'b']", ["'a' and 'b'"]),
        ("[a.1e3,größe/猫,x-1_0,Null,c/d]", ["a.1e3", "größe/猫", "x-1_0", "Null", "c/d"]),
        ("[]", []),
        ("2024_01", "2024_01"),
        ("null", None),
    ],
)
def test_lists_of_texts(key, typed, expected):
    (argument,) = quote_texts([f"{key}={typed}"], TrainConfig, GROUPS, multirun=False)
    found = parsed(argument).value()
    values = found if isinstance(found, list) else [found]
    plain = [getattr(value, "text", value) for value in values]
    assert (plain if isinstance(found, list) else plain[0]) == expected


def test_labels_to_predict():
    assert quote_texts(["labels=[2024_1]"], PredictConfig, set(), multirun=False) == ["labels=['2024_1']"]


@pytest.mark.parametrize("argument", ["trust=a,b", "trust=[a],[b]", "trust=[a,b", "trust=${x}", "trust=[${x},1]",
                                      "logger.wandb.artifacts=[encoder]", "task.knn.k=[1,2]"])  # fmt: skip
def test_other_lists_are_hydra_s(argument):
    assert quote_texts([argument], TrainConfig, GROUPS, multirun=False) == [argument]


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
        ("task.linear.labels=[2024_1,b],['c],d'],null", "task.linear.labels=['2024_1',b],['c],d'],null"),
        ("trust=1.10,[2.0]", "trust='1.10',['2.0']"),
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
