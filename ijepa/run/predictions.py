"""Predicts the classes of new images with a classifier that an evaluation has left: a table with a row per image."""

import hashlib
import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader

from ijepa.config import PredictConfig
from ijepa.config.checks import parse
from ijepa.data.datamodule import EvalImages
from ijepa.data.folders import SUFFIXES, scan_folder, skipped_files
from ijepa.data.sets import Files
from ijepa.data.workers import start_worker, worker_count
from ijepa.distributed import devices
from ijepa.evaluation.context import unreadable_reason
from ijepa.evaluation.progress import progress
from ijepa.evaluation.runtime import Runtime, build_runtime
from ijepa.interop.classifier import ImageClassifier
from ijepa.interop.classifier_files import load_classifier
from ijepa.interop.heads_file import CLASSIFIER, find_heads
from ijepa.run import folders
from ijepa.util.errors import ConfigError, UserError
from ijepa.util.rows import Row, RowFile, UnfinishedError

CHUNK = 16
"""Batches per device between rows that are written."""
SHOWN = 3
"""Unreadable files that are named; the table has all."""
FORMATS = (".csv", ".parquet")


class Found(NamedTuple):
    """What is predicted for the images of a chunk, by label set.

    readable: [n] which of them can be read; the others have no row below.
    probabilities: [m, K].
    """

    readable: Tensor
    probabilities: dict[str, Tensor]


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
    output = _output(config)
    file = find_heads(config.checkpoint, [CLASSIFIER])
    classifier = load_classifier(file)
    names = _label_sets(config, classifier)
    root, paths, notes = _images(config)
    devices.check_launcher(config.hardware)
    devices.device(config.hardware)
    fabric = devices.fabric(config.hardware)
    if fabric is not None and HydraConfig.get().mode == RunMode.MULTIRUN:
        problem = "predictions on several devices cannot run in a sweep; start the jobs one by one"
        raise ConfigError("hardware.strategy", config.hardware.strategy, problem)
    with devices.launching(fabric):
        runtime = build_runtime(config.hardware, fabric)
        limit = config.data.max_pixels or classifier.description.max_pixels
        images = Files(paths, {}, classifier.encoder.spec.channels, limit)
        table = None
        if runtime.ranks.rank == 0:
            described = ", ".join(f"{name} ({len(classifier.classes[name])} classes)" for name in names)
            print(f"predicts {described} of {len(paths)} images in {root}", flush=True)
            for note in notes:
                print(f"data     {note}")
            identity = {"classifier": _digest(file), "images": images.fingerprint(), "root": str(root.resolve()),
                        "max_pixels": limit, "bf16": runtime.bf16}  # fmt: skip
            columns = _columns(names, classifier, config.probabilities)
            try:
                table = RowFile(output, columns, identity, config.overwrite)
            except UnfinishedError as error:
                raise ConfigError("output", output, str(error)) from None
            if table.rows:
                print(f"resumes  after {table.rows} images", flush=True)
        _write(config, classifier, images, root, runtime, table, names)


def _write(
    config: PredictConfig, classifier: ImageClassifier, images: Files, root: Path, runtime: Runtime,
    table: RowFile | None, names: list[str],
) -> None:  # fmt: skip
    """Predicts on all devices; only rank 0 has a ``table``."""
    first = runtime.ranks.broadcast(table.rows if table else 0)
    unreadable: list[str] = []
    begun = time.monotonic()
    try:
        for start, found in _predicted(config, classifier, images, runtime, names, first):
            if table is None:
                continue
            bad = ~found.readable
            reasons = {start + i: unreadable_reason(images, start + i) for i in bad.nonzero().flatten().tolist()}
            unreadable += reasons.values()
            table.add(_rows(found, images, root, start, reasons, classifier, config.probabilities))
    except BaseException:
        if table is not None:
            table.save()
            print(f"stopped after {table.rows} of {len(images)} images; the same command resumes", flush=True)
        raise
    if table is None:
        return
    table.finish()
    if unreadable:
        named = ", ".join(unreadable[:SHOWN]) + (", ..." if len(unreadable) > SHOWN else "")
        print(f"unreadable, without a class: {len(unreadable)} of {len(images) - first}: {named}")
    rate = (len(images) - first) / max(time.monotonic() - begun, 1e-9)
    print(f"written  {table.path}: {len(images)} images, {rate:.0f} images/s")


@torch.inference_mode()
def _predicted(
    config: PredictConfig, classifier: ImageClassifier, images: Files, runtime: Runtime, names: list[str], first: int
) -> Iterator[tuple[int, Found]]:
    """The first image and the predictions of each chunk from image ``first`` on, in all processes."""
    ranks, size = runtime.ranks, config.data.batch_size
    step = CHUNK * size * ranks.world_size
    starts = range(first, len(images), step)
    shares: list[list[list[int]]] = []
    for start in starts:
        own = ranks.share(min(step, len(images) - start))
        indices = [start + i for i in own]
        shares.append([indices[i : i + size] for i in range(0, len(indices), size)])
    dataset = EvalImages(images, classifier.transform, classifier.encoder.spec.channels)
    loader = DataLoader(
        dataset, batch_sampler=[batch for share in shares for batch in share],
        num_workers=worker_count(config.data.workers, config.hardware.devices), worker_init_fn=start_worker,
    )  # fmt: skip
    title = "" if ranks.rank else "predictions"
    embed = runtime.patches(classifier.encoder, classifier.description.layers)
    batches = iter(progress(loader, title, sum(map(len, shares))))
    classifier.to(runtime.device)
    for start, share in zip(starts, shares, strict=True):
        readable = [torch.empty(0, dtype=torch.bool)]
        probabilities: dict[str, list[Tensor]] = {name: [] for name in names}
        for _ in share:
            pixels, flags = next(batches)
            mask = flags.bool()
            readable.append(mask)
            if mask.any():
                known = pixels[mask].to(runtime.device)
                logits = classifier.logits(embed(known))
                for name in names:
                    probabilities[name].append(logits[name].softmax(dim=1).cpu())
        joined = {
            name: ranks.joined(torch.cat(parts) if parts else torch.empty(0, len(classifier.classes[name])))
            for name, parts in probabilities.items()
        }
        if not all(values.isfinite().all() for values in joined.values()):
            raise UserError(f"{config.checkpoint}: its probabilities are not finite; the weights are damaged")
        yield start, Found(ranks.joined(torch.cat(readable)), joined)


def _rows(
    found: Found, images: Files, root: Path, start: int, reasons: dict[int, str], classifier: ImageClassifier,
    every_class: bool,
) -> Iterator[Row]:  # fmt: skip
    """A row per image of a chunk: file, then class and probability by label set, then the error."""
    best = {name: values.max(dim=1) for name, values in found.probabilities.items()}
    blank = sum(2 + (values.shape[1] if every_class else 0) for values in found.probabilities.values())
    row = 0
    for index in range(start, start + len(found.readable)):
        path = Path(os.path.relpath(images.name(index), root)).as_posix()
        if index in reasons:
            yield [path, *[""] * blank, reasons[index]]
            continue
        values: list[str | float] = []
        for name, (probability, choice) in best.items():
            values += [classifier.classes[name][int(choice[row])], float(probability[row])]
            values += found.probabilities[name][row].tolist() if every_class else []
        row += 1
        yield [path, *values, ""]


def _columns(names: list[str], classifier: ImageClassifier, every_class: bool) -> dict[str, bool]:
    """The table's columns, and whether they hold numbers."""
    columns: list[tuple[str, bool]] = [("file", False)]
    for name in names:
        prefix = f"{name}_" if len(names) > 1 else ""
        columns += [(name, False), (f"{prefix}probability", True)]
        columns += [(f"{prefix}probability_{label}", True) for label in classifier.classes[name] if every_class]
    columns.append(("error", False))
    for name, _ in columns:
        if [other for other, _ in columns].count(name) > 1:
            problem = f"two columns would be named {name}; predict other label sets, one by one"
            raise ConfigError("labels", names, problem)
    return dict(columns)


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
    return root, contents.paths, skipped_files([contents])[0]


def _output(config: PredictConfig) -> Path:
    path = Path(config.output).expanduser()
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # a table for each job
        path = path.with_name(f"{path.stem}_{folders.slug(list(HydraConfig.get().overrides.task))}{path.suffix}")
    if path.suffix not in FORMATS:
        raise ConfigError("output", config.output, f"should end in {' or '.join(FORMATS)}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError("output", config.output, "needs pyarrow; pip install pyarrow, or try .csv")
    if path.is_dir():
        raise ConfigError("output", config.output, "is a folder; give a file in it")
    if path.exists() and not config.overwrite:
        raise ConfigError("output", path, "exists; choose another name, or add overwrite=true")
    folders.create(path.parent, "output")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError("output", path, "its folder cannot be written to")
    return path


def _label_sets(config: PredictConfig, classifier: ImageClassifier) -> list[str]:
    names = list(classifier.classes)
    for name in config.labels or []:
        if name not in names:
            raise ConfigError("labels", config.labels, f"the classifier has {', '.join(names)}")
    return config.labels or names


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
