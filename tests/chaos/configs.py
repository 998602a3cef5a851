"""Configurations that somebody might type: each is accepted, or refused with one line, within seconds."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ijepa.cli.explain import explain
from ijepa.cli.verbatim import quote_texts
from ijepa.config import COMBINED, TrainConfig
from ijepa.config.checks import check, parse
from ijepa.run import build
from ijepa.util.errors import UserError
from ijepa.util.paths import CONF

SECONDS = 20
"""A try that takes longer has failed."""
VALUES = ["0", "-1", "1", "2", "3", "1e300", "-1e300", "1e-300", "nan", "inf", "-inf", "1000000000000", "0.5", "null",
          "true", "[]", "{}", "[1]", "[1,2,3]", "[[1]]", "{a:1}", "''", '"', "é", "a b", "${seed}", "${", "???",
          "${oc.env:HOME}", "a,b", "choice(1,2)", "1e5", "4096", "65536", "[0.1,0.2]", "[1e300,1]", "[-1,1]",
          "\\", "#"]  # fmt: skip
GROUPS = {"model": ["vit_micro", "vit_tiny", "vit_small"], "masking": ["random", "rasterized", "block", "reference"],
          "objective": ["l2", "pixels", "latents_and_pixels"], "optimizer": ["adamw", "muon"],
          "schedule": ["constant", "cosine"], "experiment": ["smoke", "small_images"]}  # fmt: skip


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The keys of a configuration that have values, in dotted form."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def overrides(rng: np.random.Generator) -> list[str]:
    """One to four changes of the defaults: other options of groups, and values that may make no sense."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        defaults = leaves(OmegaConf.to_container(compose("train", ["data=digits"])))  # type: ignore[arg-type]
    chosen = ["data=digits"]
    for _ in range(rng.integers(1, 5)):
        if rng.random() < 0.2:
            group = str(rng.choice(list(GROUPS)))
            chosen.append(f"{group}={rng.choice(GROUPS[group])}")
            continue
        key = str(rng.choice(list(defaults)))
        before, value = defaults[key], str(rng.choice(VALUES))
        if isinstance(before, int | float) and rng.random() < 0.5:
            value = f"{before * 10.0 ** rng.integers(-6, 7):g}"
        chosen.append(f"{key}={value}")
    return chosen


def case(seed: int, folder: Path) -> None:
    """Composes, validates and wires, on the meta device; only the errors that a user reads may come."""
    typed = overrides(np.random.default_rng(seed))
    groups = {*COMBINED, *(path.name for path in CONF.iterdir() if path.is_dir())}
    begun, line = time.monotonic(), "accepted"
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("train", quote_texts(typed, TrainConfig, groups, multirun=False))
        config = parse(TrainConfig, composed)
        check(config)
        build.sampler(config)
        build.schedule(config, 1000)
        with torch.device("meta"):
            build.networks(config)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        line = explain(error, typed)
    assert line, typed
    assert "\n" not in line, (typed, line)
    assert time.monotonic() - begun < SECONDS, typed
