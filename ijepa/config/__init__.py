"""The typed schema of conf/: every key, its type and its meaning. Values are in conf/, none are here."""

from typing import Annotated, Literal

from pydantic import Field

from ijepa.config.data import Data, Scenes
from ijepa.config.decoder import Decoder
from ijepa.config.fields import Count, Section, TaskSection, Text, Trust, Workers
from ijepa.config.masking import Masking, MultiBlock, Random, Rasterized, Reference
from ijepa.config.model import Model, Predictor, TimmVit, Vit
from ijepa.config.pictures import Pictures
from ijepa.config.running import (
    Callbacks,
    CsvLogger,
    CustomCallbacks,
    Hardware,
    Loggers,
    TensorBoardLogger,
    WandbLogger,
)
from ijepa.config.tasks import (
    Attentive,
    Counting,
    Dense,
    Depth,
    Distance,
    Duplicates,
    Export,
    Knn,
    Linear,
    Logistic,
    Map,
    Paper,
    Retrieval,
    Segmentation,
    Tasks,
)
from ijepa.config.training import Curve, LearningRate, Objective, Optimizer, Schedule, TeacherRun
from ijepa.config.tuning import Finetune, Lowshot, LowshotFinetune, Tuning

__all__ = [
    "COMBINED",
    "TRAINING",
    "Attentive",
    "Callbacks",
    "Counting",
    "CsvLogger",
    "Curve",
    "Data",
    "Decoder",
    "Dense",
    "Depth",
    "Distance",
    "Duplicates",
    "EvaluateConfig",
    "Export",
    "Finetune",
    "Hardware",
    "Knn",
    "LearningRate",
    "Linear",
    "Loggers",
    "Logistic",
    "Lowshot",
    "LowshotFinetune",
    "Map",
    "Masking",
    "Model",
    "MultiBlock",
    "NewImages",
    "Objective",
    "Optimizer",
    "Paper",
    "Pictures",
    "PredictConfig",
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
    "TaskSection",
    "Tasks",
    "TeacherRun",
    "TensorBoardLogger",
    "Text",
    "TimmVit",
    "TrainConfig",
    "Tuning",
    "Vit",
    "WandbLogger",
]

COMBINED = ("experiment", "task", "logger", "callback")
"""Groups of which several options can be chosen."""
TRAINING = {"model", "predictor", "schedule", "callbacks"}
"""Sections that data options may set for training (see conf/data/); the other commands ignore them."""


class TrainConfig(Section):
    """The configuration of `python train.py`."""

    run_dir: Text | None
    """folder for this run; null: a new one under runs/"""
    init: Text | None
    """weights to start from: run folder, file (docs/weights.md), timm name or URL; null: random initialisation"""
    init_channels: Literal["average", "inflate"] | None
    """if channel counts differ (init=, data.channels): average or repeat the patch embedding; null: error"""
    resume: Text | None
    """run folder or checkpoint to resume from; auto: resume the run in run_dir if there is one"""
    force: bool
    """resume even if values or images that affect the result have changed"""
    metric: Text | None = None
    """what sweeps rank runs by and Optuna optimises: count/logistic, train/loss, ...; null: mean over label sets of
    the first task's main metric"""
    trust: Trust = Field(default_factory=list)  # for runs older than the key
    """packages of your own whose classes the run to resume, or the weights of init=, may name: [my_package]"""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """seed of initial weights, image order, crops and masks"""
    model: Model
    predictor: Predictor
    data: Data
    masking: Masking
    objective: Objective
    teacher: TeacherRun | None = None
    """an encoder that is trained first, in RUN_DIR/teacher, and whose features the run then predicts; null: none"""
    checkpoint: Text | None = None
    """whose representations a decoder draws (experiment=decoder): run folder, file, timm name or URL"""
    decoder: Decoder | None = None
    """train a decoder of a checkpoint's representations, which stays as it is, instead of an encoder; null: no"""
    optimizer: Optimizer
    schedule: Schedule
    hardware: Hardware
    logger: Loggers = Loggers()  # these defaults are for logger=[] and for runs older than the key callback
    callbacks: Callbacks
    callback: CustomCallbacks = CustomCallbacks()
    task: Tasks


class EvaluateConfig(Section):
    """The configuration of `python evaluate.py`."""

    checkpoint: Text
    """run folder, file (docs/weights.md), timm name or URL; random: an untrained encoder with the shape of model="""
    heads: Count | None
    """attention heads, if the checkpoint does not store them; null: as for the published size"""
    encoder: Literal["target", "context"]
    """which encoder of the checkpoint to evaluate: the EMA target encoder (as in the paper) or the context encoder"""
    output: Text | None
    """folder for metrics.json; null: evaluation/TASK in the run's folder, or evaluation/FILE_TASK in the current one"""
    layers: Count
    """features are the average-pooled patches of this many last blocks, concatenated (paper: 1 or 4)"""
    cache: Text | None
    """folder that caches features for later evaluations; null: no cache"""
    baselines: bool
    """also evaluate a randomly initialised encoder and raw pixels"""
    trust: Trust
    """packages of your own whose classes the checkpoint and its run may name: [my_package]"""
    write_models: bool
    """write the classifiers and the heads for depth and segmentation that tasks train, for predict.py"""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """seed of the randomly initialised encoder and of held-out splits"""
    model: Model | None
    """the shape of checkpoint=random; null: the checkpoint's own"""
    data: Data
    task: Tasks
    hardware: Hardware


class NewImages(Section):
    """Images whose classes or maps are predicted."""

    root: Text
    """folder of images, with all folders in it; or a single image"""
    batch_size: Count
    """images per forward pass"""
    max_pixels: Count | None
    """images with more pixels are not decoded but reported as unreadable; null: as when the classifier was trained"""
    workers: Workers | None
    """data loader processes per device; null: one per core, at most 8. Never changes results"""


class PredictConfig(Section):
    """The configuration of `python predict.py`."""

    checkpoint: Text
    """classifier.safetensors, depth.safetensors or segmentation.safetensors, or the folder of an evaluation or a run
    that holds one (docs/evaluation.md)"""
    data: NewImages
    output: Text | None
    """file for the classes, ending in .csv or .parquet (needs pyarrow), or folder for maps; null: predictions.csv, or
    maps"""
    labels: list[Text] | None
    """label sets to predict; null: all of the classifier's"""
    probabilities: bool
    """also write the probability of each class"""
    trust: Trust
    """packages of your own whose classes the file may name: [my_package]"""
    overwrite: bool
    """replace the output if it exists"""
    hardware: Hardware


class StatisticsConfig(Section):
    """The configuration of `python -m ijepa.data.statistics`."""

    name: Text | None
    """NAME in conf/data/NAME.yaml, which is written; null: the name of data.root's folder"""
    images: Count | None
    """number of training images to read, drawn by seed; null: all"""
    overwrite: bool
    """replace a conf/data/NAME.yaml that this command has written before"""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """seed of the held-out split and of the images drawn"""
    data: Data


class VerifyConfig(Section):
    """The configuration of `python -m ijepa.data.verify`."""

    output: Text | None
    """JSON file that names all unreadable files and duplicates; null: none"""
    overwrite: bool
    """replace the output if it exists"""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """seed of the held-out split"""
    data: Data
