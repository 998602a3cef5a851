"""Configuration of hardware, logging and what happens during a run."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ijepa.config.custom import NamedSections
from ijepa.config.fields import MAX_COUNT, Count, Positive, Section, Text


class Hardware(Section):
    """The devices of a run; they change results by rounding only (except with masking=reference)."""

    accelerator: Literal["auto", "cpu", "gpu"]
    """auto: a GPU if available"""
    devices: Count
    """devices per node"""
    nodes: Count
    """number of machines"""
    strategy: Literal["single", "ddp", "fsdp"]
    """one device, replicas (DDP), or everything sharded (FSDP2)"""
    precision: Literal["auto", "32-true", "bf16-mixed", "bf16-true"]
    """auto: bf16-mixed if the device supports bf16, else 32-true (evaluate.py: 32-true); bf16-true: compute in bf16,
    weights and optimiser stay fp32"""
    accumulation: Count
    """gradient accumulation: micro-batches per step and device"""
    compile: Literal[False, True, "networks"]
    """torch.compile each block; networks: each network as a whole, which takes minutes to compile"""
    checkpointing: Literal[False, True, "selective"]
    """recompute activations in the backward pass, for less memory and a third more time; selective: all but the results
    of matrix multiplications"""
    tf32: bool = False
    """train with TensorFloat-32 on a GPU: float32 matrix multiplications are faster and less precise; bf16 has few"""


class CsvLogger(Section):
    """metrics.csv in the run's folder, which every run writes."""


class WandbLogger(Section):
    """Weights & Biases, in addition to metrics.csv."""

    project: Text
    """W&B project"""
    entity: Text | None
    """user or team; null: your default"""
    group: Text | None
    """group of runs; null: in a sweep, the name of the sweep's folder"""
    job_type: Text | None
    """kind of run within the group"""
    tags: list[Text]
    """tags"""
    notes: Text | None
    """notes"""
    run_name: Text | None
    """the run's name; null: the name of its folder"""
    mode: Literal["online", "offline", "disabled"]
    """offline: log to the run's folder, for wandb sync; disabled: log nothing; WANDB_MODE replaces online"""
    artifacts: list[Literal["encoder", "checkpoints"]]
    """what to upload at the end: the exported encoder; the last checkpoint and the best ones"""


class TensorBoardLogger(Section):
    """TensorBoard, in addition to metrics.csv: event files in tensorboard/ in the run's folder."""


class Loggers(NamedSections):
    """Where the run's numbers go in addition to metrics.csv; several by logger=[wandb,tensorboard]."""

    csv: CsvLogger | None = None
    """metrics.csv only"""
    wandb: WandbLogger | None = None
    """Weights & Biases"""
    tensorboard: TensorBoardLogger | None = None
    """TensorBoard"""

    @classmethod
    def by_name(cls, values: Any) -> Any:
        """Also converts older runs' single logger, whose keys are beside its ``name``."""
        if not isinstance(values, dict) or not isinstance(values.get("name"), str):
            return super().by_name(values)
        sections = {name: value for name, value in values.items() if name in cls.model_fields}
        logger_keys = {name: value for name, value in values.items() if name != "name" and name not in sections}
        return {**sections, values["name"]: {**logger_keys, **(sections.get(values["name"]) or {})}}


class Callbacks(Section):
    """What happens during the run."""

    log_every_steps: Count
    """steps between rows of metrics.csv"""
    progress_every_seconds: Positive
    """seconds between progress lines if there is no terminal for a progress bar"""
    checkpoint_every_steps: Count | None
    """steps between checkpoints; null: only by time and at the end"""
    checkpoint_every_minutes: Positive | None
    """minutes between checkpoints, in addition to those by steps; null: only by steps"""
    checkpoint_keep: Count
    """number of newest checkpoints/step-*.ckpt to keep; last.ckpt is the newest of them"""
    max_skipped_steps: Count | None = 20  # this default is for older files that Hydra composes (--config-dir)
    """stop after so many steps in a row whose loss or gradients are not finite, which are skipped; null: never"""
    health_every_steps: Literal["auto"] | Count | None
    """steps between health checks; auto: chosen so that they take less than 3 % of the time; null: never"""
    health_images: Annotated[int, Field(ge=16, le=MAX_COUNT)]
    """held-out images for health checks"""
    evaluate_every_epochs: Positive | None
    """epochs between evaluations (task=), if images have labels; null: only at the end"""
    baselines: bool
    """also evaluate random init and raw pixels, at the end"""
    pictures: Count | None
    """pictures of features drawn during the run, evenly spaced, in addition to one before training and those at the
    end; null: no pictures at all"""


class CustomCallbacks(NamedSections):
    """Lightning callbacks of your own, by callback=NAME or callback=[NAME,NAME] (docs/extending.md)."""
