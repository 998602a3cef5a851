"""Experiments, models and data sets resolve to the values in resolved.json, alone and in combination.

After a change of values that is meant: PYTHONPATH=tests:. python tests/config/test_resolved.py
"""

import itertools
import json
from pathlib import Path

import pytest
from helpers import ROOT, composed
from omegaconf import OmegaConf

RESOLVED = Path(__file__).with_name("resolved.json")
DATA = ("cifar10", "folder", "scenes")
"""One that brings a patch size, one that brings nothing but images, one that brings a length of the run, too."""


def options(group):
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("[!_]*.yaml"))


def combinations():
    """Overrides: each experiment, model and data set, and what may stand in each other's way."""
    yield from ([f"{group}={name}"] for group in ("data", "schedule") for name in options(group))
    yield from ([f"model={model}", f"data={data}"] for model, data in itertools.product(options("model"), DATA))
    for experiment in options("experiment"):
        for other in ([], ["data=cifar10"], ["data=imagenet"], ["model=vit_small"]):
            yield [f"experiment={experiment}", *other]


def values(overrides):
    """Every key with its value, interpolations of the environment as they are written."""
    plain = OmegaConf.to_container(composed(*overrides), resolve=False)
    return dict(flat(plain, ""))


def flat(node, prefix):
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def resolved():
    """The defaults, and where each combination differs from them; null for a key that it lacks."""
    base = values([])
    found = {"": base}
    for overrides in combinations():
        here = values(overrides)
        keys = sorted({*base, *here})
        found[" ".join(overrides)] = {key: here.get(key) for key in keys if here.get(key) != base.get(key)}
    return found


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RESOLVED.read_text())


@pytest.mark.integration
@pytest.mark.parametrize("group", ["", "data", "schedule", "model", "experiment"])
def test_values_are_those_of_before(recorded, group):
    base = recorded[""]
    for name in recorded:
        if name.partition("=")[0] != group:
            continue
        here = values(name.split())
        for key, value in {**base, **recorded[name]}.items():
            assert here.get(key) == value, f"{name or 'the default'}: {key}"


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in resolved().items()]
    RESOLVED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
