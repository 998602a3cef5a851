"""Where a run runs, what it tells and keeps."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ijepa.config.custom import Named
from ijepa.config.fields import Count, Section, Text


class Hardware(Section):
    """Where the run runs; changes what it computes by rounding alone (masking=reference apart)."""

    accelerator: Literal["auto", "cpu", "gpu"]
    """auto: a GPU where there is one"""
    devices: Count
    """devices per node"""
    nodes: Count
    """machines"""
    strategy: Literal["single", "ddp", "fsdp"]
    """one device, replicas, or everything sharded"""
    precision: Literal["auto", "32-true", "bf16-mixed", "bf16-true"]
    """auto: bf16-mixed where the device has bf16, else 32-true (evaluate.py: 32-true); bf16-true: from fp32 weights"""
    accumulation: Count
    """micro-batches per step and device"""
    compile: bool
    """torch.compile each block"""
    checkpointing: bool
    """recompute activations in the backward pass: less memory, a third more time"""


class CsvLogger(Section):
    """metrics.csv in the run's folder, which every run writes."""


class WandbLogger(Section):
    """Weights & Biases, beside metrics.csv."""

    project: Text
    """project"""
    entity: Text | None
    """user or team; null: your default"""
    group: Text | None
    """group of runs; null: in a sweep, the sweep's"""
    job_type: Text | None
    """kind of run within the group"""
    tags: list[Text]
    """tags"""
    notes: Text | None
    """notes"""
    run_name: Text | None
    """name; null: the run folder's"""
    mode: Literal["online", "offline", "disabled"]
    """offline keeps everything in the run's folder, for wandb sync; disabled: nothing; WANDB_MODE replaces online"""
    artifacts: list[Literal["encoder", "checkpoints"]]
    """what to upload at the end: the exported encoder; the last checkpoint and the best ones"""


class TensorBoardLogger(Section):
    """TensorBoard, beside metrics.csv: event files in tensorboard/ of the run's folder."""


class Loggers(Named):
    """Where the run's numbers go beside metrics.csv; several by logger=[wandb,tensorboard]."""

    csv: CsvLogger | None = None
    """nothing beside metrics.csv"""
    wandb: WandbLogger | None = None
    """Weights & Biases"""
    tensorboard: TensorBoardLogger | None = None
    """TensorBoard"""

    @classmethod
    def by_name(cls, values: Any) -> Any:
        """Also of runs that had one logger alone, with its keys beside its ``name``."""
        if not isinstance(values, dict) or not isinstance(values.get("name"), str):
            return super().by_name(values)
        below = {name: value for name, value in values.items() if name in cls.model_fields}
        flat = {name: value for name, value in values.items() if name != "name" and name not in below}
        return {**below, values["name"]: {**flat, **(below.get(values["name"]) or {})}}


class Callbacks(Section):
    """What happens along the run."""

    log_every_steps: Count
    """steps between rows of metrics.csv"""
    progress_every_seconds: Annotated[float, Field(gt=0)]
    """seconds between lines of progress where there is no terminal for a bar"""
    checkpoint_every_steps: Count | None
    """steps between checkpoints; null: only by the clock and at the end"""
    checkpoint_every_minutes: Annotated[float, Field(gt=0)] | None
    """minutes between checkpoints, whatever the steps; null: only by steps"""
    checkpoint_keep: Count
    """how many of the newest checkpoints/step-*.ckpt to keep; last.ckpt is the newest of them"""
    health_every_steps: Literal["auto"] | Count | None
    """steps between looks at the run's health; auto: so many that they take less than 3 % of its time; null: never"""
    health_images: Annotated[int, Field(ge=16)]
    """held-out images that they are computed from"""
    evaluate_every_epochs: Annotated[float, Field(gt=0)] | None
    """epochs between evaluations by task where images have labels; null: only at the end"""
    baselines: bool
    """at the end also evaluate random init and raw pixels"""
    pictures: Count | None
    """of the same images' features along the run, evenly spaced, beside the one before its first step; null: none"""


class OwnCallbacks(Named):
    """Lightning callbacks of your own, by callback=NAME or callback=[NAME,NAME] (docs/extending.md)."""
