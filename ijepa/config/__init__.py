"""The typed schema of conf/: every key, its type and what it means. The values live in conf/, none here."""

from typing import Annotated, Literal

from pydantic import Field

from ijepa.config.data import Data, Scenes
from ijepa.config.fields import Count, Section, Text
from ijepa.config.masking import Masking, MultiBlock, Random, Rasterized, Reference
from ijepa.config.model import Model, Predictor, TimmVit, Vit
from ijepa.config.pictures import Pictures
from ijepa.config.running import Callbacks, CsvLogger, Hardware, Logger, TensorBoardLogger, WandbLogger
from ijepa.config.tasks import (
    Attentive,
    Counting,
    Dense,
    Depth,
    Distance,
    Export,
    Finetune,
    Knn,
    Linear,
    Logistic,
    Lowshot,
    LowshotFinetune,
    Paper,
    Retrieval,
    Segmentation,
    Task,
    Tasks,
    Tuning,
)
from ijepa.config.training import Curve, LearningRate, Objective, Optimizer, Schedule

__all__ = [
    "TRAINING",
    "Attentive",
    "Callbacks",
    "Counting",
    "CsvLogger",
    "Curve",
    "Data",
    "Dense",
    "Depth",
    "Distance",
    "EvaluateConfig",
    "Export",
    "Finetune",
    "Hardware",
    "Knn",
    "LearningRate",
    "Linear",
    "Logger",
    "Logistic",
    "Lowshot",
    "LowshotFinetune",
    "Masking",
    "Model",
    "MultiBlock",
    "Objective",
    "Optimizer",
    "Paper",
    "Pictures",
    "Predictor",
    "Random",
    "Rasterized",
    "Reference",
    "Retrieval",
    "Scenes",
    "Schedule",
    "Section",
    "Segmentation",
    "StatisticsConfig",
    "Task",
    "Tasks",
    "TensorBoardLogger",
    "Text",
    "TimmVit",
    "TrainConfig",
    "Tuning",
    "Vit",
    "WandbLogger",
]

TRAINING = {"model", "predictor", "schedule", "callbacks"}
"""What options bring along for training (see conf/data/): of no concern to the other commands."""


class TrainConfig(Section):
    """What `python train.py` takes."""

    run_dir: Text | None
    """folder of this run; null: a new one under runs/"""
    init: Text | None
    """weights to start from: run folder, file (docs/weights.md), timm name or address; null: initial ones"""
    init_channels: Literal["average", "inflate"] | None
    """with another data.channels than init's: patch embeddings of their mean, or repeated; null: refused"""
    resume: Text | None
    """run folder or checkpoint to go on from; auto: run_dir's own run, where it has one"""
    force: bool
    """resume even with changed values or images that change the result"""
    metric: Text | None = None
    """what a sweep compares runs by, and Optuna searches for: count/logistic, train/loss, ...; null: mean headline"""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """of initial weights, order, crops and masks"""
    model: Model
    predictor: Predictor
    data: Data
    masking: Masking
    objective: Objective
    optimizer: Optimizer
    schedule: Schedule
    hardware: Hardware
    logger: Logger
    callbacks: Callbacks
    task: Tasks


class EvaluateConfig(Section):
    """What `python evaluate.py` takes."""

    checkpoint: Text
    """run folder, file (docs/weights.md), timm name or address; random: an untrained encoder, of the shape of model="""
    heads: Count | None
    """attention heads, where the checkpoint does not tell; null: those of the published size"""
    encoder: Literal["target", "context"]
    """which encoder of a checkpoint to evaluate; the paper: target"""
    output: Text | None
    """folder for metrics.json; null: evaluation/TASK in the run's folder, or evaluation/FILE_TASK here"""
    layers: Count
    """average-pooled patches of so many of the last blocks, concatenated, are the features (paper: 1 or 4)"""
    cache: Text | None
    """folder that keeps features for the next evaluation of the same; null: none"""
    baselines: bool
    """also evaluate a random-init encoder and raw pixels"""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """of the random-init encoder and of held-out splits"""
    model: Model | None
    """the shape of checkpoint=random; null: the checkpoint's own"""
    data: Data
    task: Tasks
    hardware: Hardware


class StatisticsConfig(Section):
    """What `python -m ijepa.data.statistics` takes."""

    name: Text | None
    """conf/data/NAME.yaml is written; null: the name of data.root's folder"""
    images: Count | None
    """so many training images, drawn by seed, are read; null: all"""
    overwrite: bool
    """replace a conf/data/NAME.yaml that this command has written"""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """of what is held out and of the drawn images"""
    data: Data
