"""Evaluates a decoder: ``python evaluate.py task=decode checkpoint=DECODER_RUN``."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from ijepa.config import TRAINING, EvaluateConfig
from ijepa.config.checks import check_data, parse
from ijepa.data import sources
from ijepa.distributed import devices
from ijepa.evaluation.decoding import decode
from ijepa.evaluation.decoding.measures import OWN
from ijepa.evaluation.runtime import build_runtime
from ijepa.interop import decoder_files, loading
from ijepa.run import build, checkpoint_data, folders, outputs
from ijepa.run_folder.evaluation import UNFINISHED, evaluation_file
from ijepa.util.errors import ConfigError, InterruptedRunError, UserError


def evaluate(composed: DictConfig) -> float | None:
    """Draws held-out blocks and measures how close they are; returns how often its own representation draws closer.

    Raises:
        UserError: when checkpoint, data and task do not fit together.
    """
    container = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(container, dict)
    values: dict[str, Any] = {str(k): value for k, value in container.items() if k not in TRAINING}
    others = [name for name in values["task"] if name != "decode"]
    if others:
        raise ConfigError("task", others[0], "is for encoders, and task=decode for decoders; evaluate them one by one")
    for key in sorted(checkpoint_data.override_keys() & {"encoder", "layers", "heads", "model"}):
        raise UserError(f"{key}: the networks are the decoder's; omit it")
    path = loading.resolve_source(str(composed.checkpoint))
    sketcher, description = decoder_files.read(path)
    values |= {"data": checkpoint_data.values(values["data"], path, sketcher.spec), "model": None}
    if values["data"]["root"] == "???":
        raise UserError("data.root is not set; add data.root=FOLDER")
    config = parse(EvaluateConfig, values)
    assert config.task.decode is not None
    check_data(config.data)
    if tuple(config.data.image_size) != sketcher.spec.image_size:
        raise ConfigError("data.image_size", config.data.image_size, "the decoder's encoder has another; omit it")
    if devices.fabric(config.hardware) is not None:
        raise ConfigError("hardware.devices", config.hardware.devices, "task=decode runs on one device; try 1")
    source = sources.build(config.data, outputs.split_seed(path, config.data.source, config.data.root, config.seed))
    if not len(source.val):
        raise ConfigError("data.val_fraction", config.data.val_fraction, "leaves no validation images to draw")
    masking = outputs.mask_sampler(path, config, sketcher.spec.patch_size, first=True)
    if masking is None:
        raise UserError("the masks of the decoder's run do not fit the images")
    data = build.data(config.data, source, masking, 0, config.hardware, config.seed)
    source.prepare()
    runtime = build_runtime(config.hardware, None)
    prepared = decode.prepare(config.task.decode, sketcher, data, runtime.device)
    folder = outputs.output_folder(config, path)
    folders.create(folder, "output")
    (folder / UNFINISHED).touch()
    print(f"decode on {len(source.train)} training and {len(source.val)} validation images", flush=True)
    try:
        found = decode.decode(config.task.decode, prepared, sketcher, data, masking, config.seed, runtime.device,
                              runtime.bf16, withheld=description["withheld"] > 0)  # fmt: skip
    except (InterruptedRunError, KeyboardInterrupt):
        print(f"stopped before {evaluation_file(folder)} was written; the same command begins again", flush=True)
        raise
    rows = found.rows
    rows[0].details["decode"] = found.details
    rows[0].files.extend(decode.write(found, folder))
    outputs.report(config, rows, [], data, folder, unit="")
    closer = rows[0].results.get("decode_closer", rows[0].results["decode_closer_pixels"])
    assert rows[0].name == OWN
    return closer.value
