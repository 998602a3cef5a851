"""Pretraining in a notebook: a configuration, a datamodule from any torch `Dataset`, a LightningModule.

Train them with a plain `L.Trainer`; the defaults are those of conf/. Example: docs/library.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from torch.utils.data import Dataset

from ijepa.api.composing import composed
from ijepa.config import TrainConfig
from ijepa.config.checks import check, parse
from ijepa.config.trust import check_targets, trusting
from ijepa.data import sources
from ijepa.data.datamodule import Batch, DataModule
from ijepa.data.images import EvalTransform
from ijepa.data.sets import Source, Subset
from ijepa.data.torch_dataset import DatasetImages
from ijepa.distributed import sharding
from ijepa.interop import timm
from ijepa.interop.loading import load_checkpoint
from ijepa.models.pretrained import PretrainedEncoder, Spec
from ijepa.run import build, init_options
from ijepa.run_folder.config import from_text, to_text
from ijepa.training.module import TEACHER_SPEC_KEY, Pretraining
from ijepa.training.protocol import Execution
from ijepa.util.errors import UserError

CONFIG_KEY, IMAGES_COUNT_KEY = "ijepa_config", "ijepa_training_images"
"""What a checkpoint of `PretrainingModule` holds beside weights: configuration and number of training images."""


def compose_config(*overrides: str) -> TrainConfig:
    """The configuration of a run, from the same ``key=value`` overrides that ``ijepa train`` takes.

    Args:
        overrides: ``"model=vit_tiny"``, ``"data.image_size=96"``, ...; the default of ``data`` is ``data=folder``.

    Raises:
        UserError: when a key or a value is wrong.
    """
    use_default_data = not any(item.lstrip("+").startswith("data=") for item in overrides)
    items = [*(["data=folder", "data.root=null"] if use_default_data else []), *overrides]
    with composed("train", items) as values:
        config = parse(TrainConfig, init_options.resolve_init(values))
    check(config)
    return config


def build_datamodule(
    config: TrainConfig, train: Dataset[Any] | None = None, val: Dataset[Any] | None = None
) -> DataModule:
    """Batches of random crops with their masks, for the whole run.

    Args:
        config: from `compose_config`.
        train: a map-style dataset whose items are images, or tuples that start with one: PIL images or tensors
            [C, H, W], uint8 or floats in 0..1 (or in the units of ``data.mean`` and ``data.std``). Labels are ignored.
            None: the images that ``data`` names.
        val: held-out images of the same kind; your own code can read them from ``datamodule.source.val``.

    Raises:
        UserError: when an item is not such an image, or there are none.
    """
    if train is None:
        source = sources.build(config.data, config.seed)
        source.prepare()
    else:
        images = DatasetImages(train, config.data.channels)
        held_out = Subset(images, []) if val is None else DatasetImages(val, config.data.channels)
        source = Source(images, held_out)
    steps = build.schedule(config, len(source.train)).max_steps
    return build.data(config.data, source, build.sampler(config), steps, config.hardware, config.seed)


def build_module(config: TrainConfig, data: DataModule) -> "PretrainingModule":
    """The LightningModule of a configuration; its initial weights come from ``init``, else from ``seed``.

    Args:
        config: from `compose_config`.
        data: from `build_datamodule`, with the same configuration.

    Raises:
        UserError: when the networks do not fit the images or the weights.
    """
    return _built(config, len(data.source.train), PretrainingModule)


def _built(
    config: TrainConfig,
    images: int,
    kind: "type[PretrainingModule]",
    use_init: bool = True,
    teacher: PretrainedEncoder | None = None,
) -> "PretrainingModule":
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        module, _ = build.pretraining(config, images, kind, use_init, teacher)
    module.config, module.training_images = config, images
    module.execution = Execution(
        config.hardware.precision == "bf16-true", config.hardware.checkpointing, config.hardware.compile
    )
    return module


def _unloaded(spec: dict[str, Any] | None) -> PretrainedEncoder | None:
    """The frozen encoder of a checkpoint, before its weights are loaded with those of the module."""
    if spec is None:
        return None
    with torch.random.fork_rng(devices=[]):
        described = Spec.of(spec)
        return PretrainedEncoder(described.build(), described)


class PretrainingModule(Pretraining):
    """The LightningModule of I-JEPA for a plain `L.Trainer`; from `build_module` or `load_from_checkpoint`.

    It logs ``train/loss`` and its terms with `self.log`, and its checkpoints hold its configuration.
    """

    config: TrainConfig
    training_images: int

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: str | torch.device | None = None,
        strict: bool | None = None,
        trust: str | Sequence[str] = (),
    ) -> "PretrainingModule":
        """The module of a checkpoint that Lightning has written, with its weights.

        Args:
            checkpoint_path: of a file of Lightning's `ModelCheckpoint` or `Trainer.save_checkpoint`.
            map_location: device; None: the CPU.
            strict: False: weights may be missing, or too many.
            trust: packages whose classes the file may name.

        Raises:
            UserError: if it cannot be read, was not written by a `PretrainingModule`, or names classes that ``trust``
                does not allow.
        """
        file = Path(checkpoint_path).expanduser()
        contents = load_checkpoint(file)
        if not {CONFIG_KEY, IMAGES_COUNT_KEY, "state_dict"} <= contents.keys():
            problem = "holds no configuration; ijepa.load_encoder reads its encoder, and ijepa train resumes a run"
            raise UserError(f"{file}: {problem}")
        values = from_text(contents[CONFIG_KEY], file)
        plain = OmegaConf.to_container(values, resolve=True)
        assert isinstance(plain, dict)
        with trusting(trust):
            check_targets({str(key): value for key, value in plain.items()}, file)
            teacher = _unloaded(contents.get(TEACHER_SPEC_KEY))
        module = _built(parse(TrainConfig, values), contents[IMAGES_COUNT_KEY], cls, use_init=False, teacher=teacher)
        try:
            module.load_state_dict(contents["state_dict"], strict=strict is not False)
        except RuntimeError:
            raise UserError(f"{file}: its weights are not those of its configuration") from None
        return module if map_location is None else module.to(map_location)

    def checkpoint_extras(self) -> dict[str, Any]:
        """Also the configuration, for `load_from_checkpoint`."""
        text = to_text(self.config.model_dump(mode="json", by_alias=True))
        return {**super().checkpoint_extras(), CONFIG_KEY: text, IMAGES_COUNT_KEY: self.training_images}

    def on_fit_start(self) -> None:
        """Raises UserError if the arguments of the trainer do not match the datamodule."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning adds it
        accumulated, devices = self.trainer.accumulate_grad_batches, self.trainer.world_size
        if not isinstance(data, DataModule):
            raise UserError("the batches carry masks; call fit(module, data) with data from ijepa.build_datamodule")
        steps = self.trainer.max_steps
        if steps > data.max_steps or (steps == -1 and self.trainer.max_epochs != 1):
            raise UserError(f"the schedule has {data.max_steps} steps; try Trainer(max_steps=data.max_steps)")
        self._validate_epochs(accumulated)
        if accumulated != data.accumulation:
            problem = f"hardware.accumulation is {data.accumulation}; give both the same"
            raise UserError(f"Trainer(accumulate_grad_batches={accumulated}): {problem}")
        if data.batch_size % (accumulated * devices):
            problem = f"cannot be divided over {devices} devices x {accumulated} micro-batches"
            raise UserError(f"data.batch_size={data.batch_size}: {problem}")

    def _validate_epochs(self, accumulated: int) -> None:
        """Raises UserError if the trainer's epochs would repeat or skip batches of the run."""
        trainer: Any = self.trainer
        limit = trainer.limit_train_batches
        whole_run = isinstance(limit, float) and limit == 1.0
        if whole_run or trainer.max_epochs == 1 or trainer.fast_dev_run or trainer.overfit_batches:
            return
        name = f"Trainer(limit_train_batches={limit})"
        if trainer.reload_dataloaders_every_n_epochs != 1:
            raise UserError(
                f"{name}: each epoch would begin with the first batches; add reload_dataloaders_every_n_epochs=1"
            )
        if accumulated > 1 and (isinstance(limit, float) or limit % accumulated):
            raise UserError(f"{name}: should be a multiple of accumulate_grad_batches={accumulated}")

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Also logs ``train/loss`` and its terms."""
        result = super().training_step(batch, batch_idx)
        parts = {f"train/{name}": value for name, value in result["parts"].items() if name != "total"}
        count = len(batch.images)
        self.log("train/loss", result["loss"].detach(), prog_bar=True, batch_size=count)
        self.log_dict(parts, batch_size=count)
        return result

    def encoder(self, which: Literal["target", "context"] = "target") -> PretrainedEncoder:
        """A copy of an encoder with its current weights, on the CPU, as from `ijepa.load_encoder`.

        With sharded weights, every process must call it.
        """
        network = self.spec.build()
        trained = self.jepa.target_encoder if which == "target" else self.jepa.context_encoder
        network.load_state_dict(sharding.full_state_dict(trained))
        pretrained = PretrainedEncoder(network, self.spec).eval().requires_grad_(False)
        pretrained.transform = EvalTransform(self.spec.image_size, self.spec.eval_crop, self.spec.channels)
        return pretrained


def save_encoder(encoder: PretrainedEncoder, path: str | Path) -> None:
    """Writes an encoder as a run writes encoder.safetensors: timm's names; sizes, mean and std in the metadata.

    Raises:
        UserError: when ``path`` does not end in .safetensors.
    """
    file = Path(path).expanduser()
    if file.suffix != ".safetensors":
        raise UserError(f"{file}: should end in .safetensors")
    timm.write(file, encoder.encoder, encoder.spec, "target")
