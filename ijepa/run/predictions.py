"""Predicts classes or maps of new images with what an evaluation has left: a table with a row per image."""

import importlib.util
import os
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ijepa.config import PredictConfig
from ijepa.config.checks import parse
from ijepa.data.files import Files
from ijepa.data.loader import Loader
from ijepa.data.scan import SUFFIXES, scan_folder
from ijepa.data.workers import worker_count
from ijepa.distributed import devices
from ijepa.evaluation.progress import progress
from ijepa.evaluation.runtime import Runtime, build_runtime
from ijepa.interop.heads_file import CLASSIFIER, DENSE, EXAMPLES, find_heads, kind_of
from ijepa.run import folders
from ijepa.run.class_predictor import ClassPredictor
from ijepa.run.image_predictor import ImagePredictor, relative_name
from ijepa.run.map_predictor import MapPredictor
from ijepa.util.errors import ConfigError, UserError
from ijepa.util.rows import Row, RowFile, UnfinishedError

CHUNK = 16
"""Batches per device between rows that are written."""
SHOWN = 3
"""Unreadable files that are named; the table has all."""
FORMATS = (".csv", ".parquet")


def predict(composed: DictConfig) -> None:
    """Writes the predictions; resumes those of a command that was stopped.

    Raises:
        UserError: if classifier, images and output do not fit together.
    """
    if OmegaConf.is_missing(composed, "checkpoint"):
        raise UserError("checkpoint is not set; add checkpoint=RUN_DIR, or a classifier.safetensors")
    if OmegaConf.is_missing(composed.data, "root"):
        raise UserError("data.root is not set; add data.root=FOLDER")
    config = parse(PredictConfig, composed)
    predictor = _build_predictor(config)
    output = _output(config, predictor)
    root, paths, notes = _images(config)
    devices.check_launcher(config.hardware)
    devices.device(config.hardware)
    fabric = devices.fabric(config.hardware)
    if fabric is not None and HydraConfig.get().mode == RunMode.MULTIRUN:
        problem = "predictions on several devices cannot run in a sweep; start the jobs one by one"
        raise ConfigError("hardware.strategy", config.hardware.strategy, problem)
    with devices.launching(fabric):
        runtime = build_runtime(config.hardware, fabric)
        limit = config.data.max_pixels or predictor.max_pixels
        images = Files(paths, {}, predictor.encoder.spec.channels, limit, limit=predictor.value_limit)
        table = None
        if runtime.ranks.rank == 0:
            print(f"predicts {predictor.described} of {len(paths)} images in {root}", flush=True)
            for note in notes:
                print(f"data     {note}")
            identity = {**predictor.identity, "images": images.fingerprint(), "root": str(root.resolve()),
                        "max_pixels": limit, "bf16": runtime.bf16}  # fmt: skip
            columns = {"file": False, **predictor.columns, "error": False}
            stale = predictor.stale_files() if config.overwrite else []
            try:
                table = RowFile(output, columns, identity, config.overwrite)
            except UnfinishedError as error:
                raise ConfigError("output", output, str(error)) from None
            for path in stale if not table.rows else ():
                path.unlink(missing_ok=True)
            if table.rows:
                print(f"resumes  after {table.rows} images", flush=True)
        _write(config, predictor, images, root, runtime, table)


def _write(
    config: PredictConfig, predictor: ImagePredictor, images: Files, root: Path, runtime: Runtime, table: RowFile | None
) -> None:
    """Predicts on all devices; only rank 0 has a ``table``."""
    first = runtime.ranks.broadcast(table.rows if table else 0)
    predictor.prepare(runtime, images, root)
    unreadable: list[str] = []
    begun = time.monotonic()
    try:
        for start, readable, values in _predicted(config, predictor, images, runtime, first):
            if table is None:
                continue
            bad = (~readable).nonzero().flatten().tolist()
            reasons = {start + i: predictor.reason(images, start + i) for i in bad}
            unreadable += reasons.values()
            table.add(_rows(predictor, images, root, start, readable, values, reasons))
    except BaseException:
        if table is not None:
            table.save()
            print(f"stopped after {table.rows} of {len(images)} images; the same command resumes", flush=True)
        raise
    if table is None:
        return
    table.finish()
    rate = (len(images) - first) / max(time.monotonic() - begun, 1e-9)
    if unreadable:
        named = ", ".join(unreadable[:SHOWN]) + (", ..." if len(unreadable) > SHOWN else "")
        missing = next(iter(predictor.columns))
        print(f"unreadable, without a {missing}: {len(unreadable)} of {len(images) - first}: {named}")
    for path in predictor.pictures(images):
        print(f"written  {path}")
    print(f"written  {table.path}: {len(images)} images, {rate:.0f} images/s")


@torch.inference_mode()
def _predicted(
    config: PredictConfig, predictor: ImagePredictor, images: Files, runtime: Runtime, first: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of each chunk from image ``first`` on: its first image, which are readable [n], and the values of those [m, S].

    The same in all processes.
    """
    ranks, size = runtime.ranks, config.data.batch_size
    step = CHUNK * size * ranks.world_size
    starts = range(first, len(images), step)
    shares: list[list[list[int]]] = []
    for start in starts:
        own = ranks.share(min(step, len(images) - start))
        indices = [start + i for i in own]
        shares.append([indices[i : i + size] for i in range(0, len(indices), size)])
    processes = worker_count(config.data.workers, config.hardware.devices)
    loader = Loader(predictor.dataset(images), list(chain.from_iterable(shares)), processes, predictor.collate)
    batches = iter(progress(loader, "" if ranks.rank else "predictions", sum(map(len, shares))))
    for start, share in zip(starts, shares, strict=True):
        found, error = list[tuple[Tensor, Tensor]](), None
        try:
            found.extend(predictor.predict(next(batches), indices) for indices in share)
        except (UserError, OSError) as fault:  # in one process; the others must not wait for it
            error = fault
        ranks.raise_any(error)
        readable = torch.cat([flags for flags, _ in found] or [torch.empty(0, dtype=torch.bool)])
        values = torch.cat([part for _, part in found if len(part)] or [torch.empty(0)])
        yield start, ranks.joined(readable), ranks.joined(values)


def _rows(
    predictor: ImagePredictor, images: Files, root: Path, start: int, readable: Tensor, values: Tensor,
    reasons: dict[int, str],
) -> Iterator[Row]:  # fmt: skip
    """A row per image of a chunk: file, what is predicted, and the error."""
    indices = [start + i for i in readable.nonzero().flatten().tolist()]
    rows = iter(predictor.rows(values, indices))
    for index in range(start, start + len(readable)):
        path = relative_name(images, index, root)
        if index in reasons:
            yield [path, *[""] * len(predictor.columns), reasons[index]]
        else:
            yield [path, *next(rows), ""]


def _images(config: PredictConfig) -> tuple[Path, list[str], list[str]]:
    """The folder that names are relative to, the image files, and notes for the user."""
    root = Path(config.data.root).expanduser()
    if root.is_file():
        return root.parent, [str(root)], []
    if not root.is_dir():
        raise ConfigError("data.root", config.data.root, "no such folder or file")
    contents = scan_folder(root)
    if not contents.paths:
        raise ConfigError("data.root", config.data.root, f"no image ({' '.join(SUFFIXES)}) in it")
    return root, contents.paths, contents.notes()


def _build_predictor(config: PredictConfig) -> ImagePredictor:
    """The predictor of ``checkpoint``; raises UserError if there is none, or the options do not suit it."""
    file = find_heads(config.checkpoint, [CLASSIFIER, DENSE])
    kind = kind_of(file)
    if kind is None:
        names = " or ".join(thing for thing, _, _ in EXAMPLES.values())
        raise ConfigError("checkpoint", file, f"holds no {names}; evaluate.py task=logistic leaves one")
    return MapPredictor(config, file) if kind == DENSE else ClassPredictor(config, file)


def _output(config: PredictConfig, predictor: ImagePredictor) -> Path:
    """The table's path."""
    given = Path(config.output or predictor.default_output).expanduser()
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # a table for each job
        given = given.with_name(f"{given.stem}_{folders.slug(list(HydraConfig.get().overrides.task))}{given.suffix}")
    path = predictor.table(given)
    if path.suffix not in FORMATS:
        raise ConfigError("output", config.output, f"should end in {' or '.join(FORMATS)}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError("output", config.output, "needs pyarrow; pip install pyarrow, or try .csv")
    if path.exists() and not config.overwrite:
        raise ConfigError("output", path, "exists; choose another name, or add overwrite=true")
    folders.create(path.parent, "output")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError("output", path, "its folder cannot be written to")
    return path
