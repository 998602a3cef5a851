"""Damaged text files: of runs, sweeps, labels and classifiers; each is read, or refused with one line."""

import contextlib
import functools
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from helpers import train_config
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from PIL import Image
from report_folders import make
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from weight_files import spec_of

from chaos.damage import damaged_text
from ijepa.cli import entry
from ijepa.config import TrainConfig
from ijepa.config.checks import check, parse
from ijepa.data import sources
from ijepa.interop import classifier_files, heads_file
from ijepa.interop.classifier import Description, ImageClassifier, LabelSet
from ijepa.interop.weights import SPEC_KEY
from ijepa.models.pretrained import untrained_encoder
from ijepa.report.command import main as report
from ijepa.run_folder import RunFolder, SweepFolder
from ijepa.run_folder.config import write_config
from ijepa.run_folder.summary import finished_summary
from ijepa.util.errors import UserError

SECONDS = 30
"""A try that takes longer has failed."""


@functools.cache
def sweep() -> Path:
    """A sweep of one run."""
    folder = Path(tempfile.mkdtemp()) / "sweep"
    run = make(folder / "0")
    write_config(RunFolder(run).config, train_config("data=digits").model_dump())
    record = {"command": ["-m"], "keys": ["seed"], "metric": None,
              "jobs": [{"folder": "0", "values": {"seed": "0"}, "error": None}]}  # fmt: skip
    SweepFolder(folder).record.write_text(json.dumps(record))
    return folder


@functools.cache
def images() -> Path:
    folder = Path(tempfile.mkdtemp()) / "images"
    folder.mkdir()
    for name in "abcd":
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / f"{name}.png")
    return folder


def one_line(main: Callable[[], int]) -> None:
    """Runs a command: 0, or 2 and one line."""
    error = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        try:
            code = main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    lines = error.getvalue().splitlines()
    assert code == 0 or (code == 2 and len(lines) == 1 and lines[0].startswith("error: ")), (code, lines[-5:])


def run_file(name: str, rng: np.random.Generator, folder: Path) -> None:
    """A report, on the run or the sweep."""
    copy = folder / "sweep"
    shutil.copytree(sweep(), copy)
    file = copy / name
    file.write_bytes(damaged_text(file.read_bytes(), rng))
    one_line(lambda: report([str(copy / "0"), "--out", str(folder / "run.html")]))
    one_line(lambda: report([str(copy), "--out", str(folder / "sweep.html")]))
    finished_summary(RunFolder(copy / "0").summary)  # as resume=auto reads it


def repeated(rng: np.random.Generator, folder: Path) -> None:
    """The command that repeats a run."""
    file = folder / "config.yaml"
    file.write_bytes(damaged_text(RunFolder(sweep() / "0").config.read_bytes(), rng))

    def job(composed: DictConfig) -> None:
        check(parse(TrainConfig, composed))

    def train() -> int:
        try:
            entry.main("train", job)
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
        return 0

    with mock.patch.object(sys, "argv", ["train.py", "--config-dir", str(folder), "--config-name", "config"]):
        one_line(train)


def labels(rng: np.random.Generator, folder: Path) -> None:
    """data.labels."""
    file = folder / "labels.csv"
    file.write_bytes(damaged_text(b"file,class,size\na.png,1,big\nb.png,2,small\nc.png,1,big\n", rng))
    data = train_config("data=folder", f"data.root={images()}", f"data.labels={file}").data
    try:
        sources.build(data, 0)
    except UserError as error:
        line = str(error)
        assert "\n" not in line, line[:1000]


@functools.cache
def classifier() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the metadata of a classifier."""
    sets = {"animal": LabelSet(["cat", "dog", "owl"], 2.0)}
    description = Description(sets, (16, 24), 0.9, True, layers=2, facts={"task": "logistic"})
    made = ImageClassifier(untrained_encoder(spec_of("square"), 0), {"animal": nn.Linear(48, 3)}, description)
    file = Path(tempfile.mkdtemp()) / classifier_files.FILE
    classifier_files.write_classifier(file, made)
    with safe_open(file, "pt") as opened:
        return load_file(file), dict(opened.metadata())


def metadata(rng: np.random.Generator, folder: Path) -> None:
    """What describes a classifier, or its encoder, as predict.py reads it."""
    state, described = classifier()
    key = (heads_file.CLASSIFIER, SPEC_KEY)[rng.integers(2)]
    text = damaged_text(described[key].encode(), rng).decode(errors="replace")
    file = folder / classifier_files.FILE
    save_file(state, file, {**described, key: text})
    try:
        classifier_files.load_classifier(file)
    except UserError as error:
        line = str(error)
        assert "\n" not in line, line[:1000]
        assert str(file) in line, line[:1000]


FILES = ("0/config.yaml", "0/metrics.csv", "0/summary.json", "0/health.json", "0/evaluation/knn/metrics.json",
         "sweep.json")  # fmt: skip
KINDS: list[Callable[[np.random.Generator, Path], None]] = [
    *(functools.partial(run_file, name) for name in FILES), repeated, labels, metadata,
]  # fmt: skip


def case(seed: int, folder: Path) -> None:
    """One damaged file, read by the command that reads it: in time, and with one line if it is refused."""
    rng = np.random.default_rng(seed)
    begun = time.monotonic()
    KINDS[seed % len(KINDS)](rng, folder)
    assert time.monotonic() - begun < SECONDS, KINDS[seed % len(KINDS)]
