"""The typed schema of conf/: every key, its type and what it means. The values live in conf/, none here."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]
Folder = Annotated[Text, AfterValidator(lambda path: str(Path(path).expanduser().absolute()))]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Size = Annotated[
    list[Annotated[int, Field(ge=1)]],
    BeforeValidator(lambda value: [value, value] if isinstance(value, int) else value),
    Field(min_length=2, max_length=2),
]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, strict=True)]
Weight = Annotated[float, Field(ge=0)]
Duration = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A node of the configuration; the text below a field is its help."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


class Model(Section):
    """The encoder."""

    patch_size: Count
    """side of a patch in pixels; divides data.image_size"""
    width: Count
    """token width D; a multiple of 4 and of heads"""
    depth: Count
    """transformer blocks"""
    heads: Count
    """attention heads; divides width (the predictor's too)"""
    mlp_ratio: Annotated[float, Field(gt=0)]
    """hidden width of the MLPs over width"""
    positions: Literal["index", "scaled"]
    """sin-cos positions of patch indices (index, as published) or mapped onto position_grid (scaled)"""
    position_grid: Size | None
    """rows and columns of the grid that scaled positions refer to; null for this run's own"""
    init: Literal["published", "reference"]
    """initial weights: as published, or without the depth-wise rescaling that the reference code undoes"""


class Predictor(Section):
    """The predictor; it has as many heads as the encoder."""

    width: Count
    """token width; a multiple of 4 and of model.heads"""
    depth: Count
    """transformer blocks"""


class Data(Section):
    """Where images come from and how they enter the model."""

    source: Text
    """folder, digits, or package.module.function (see docs/data.md)"""
    root: Folder | None
    """folder of images: ROOT/train and ROOT/val, or ROOT alone, split by seed; subfolders are classes"""
    val_fraction: Annotated[float, Field(ge=0, lt=1)]
    """share held out when the source has no validation images of its own"""
    image_size: Size
    """height and width of the model's input, in pixels: n or [h,w]"""
    channels: Count
    """1 (grey), 3 (RGB), 4 (RGBA), images are converted; or as many as the arrays or stacks have"""
    mean: list[float]
    """mean of each channel, of values in 0..1 (floats: as they are); python -m ijepa.data.statistics computes it"""
    std: list[Annotated[float, Field(gt=0)]]
    """standard deviation of each channel"""
    batch_size: Count
    """images per step over all devices and accumulated micro-batches"""
    crop_scale: Pair
    """area of a random crop, as a share of the image"""
    crop_aspect: Pair
    """width / height of a random crop"""
    flip: bool
    """mirror half of the images; not in the published recipe"""
    eval_crop: Annotated[float, Field(gt=0, le=1)]
    """share of the shorter side that the evaluation's centre crop keeps (ImageNet: .875)"""
    max_pixels: Count | None = None  # the only default: runs from before this key had no such limit
    """larger images are not decoded but reported as unreadable; null: no limit"""
    workers: Annotated[int, Field(ge=0)] | None
    """processes that read images, per device; null: one per core, at most 8. Never changes results"""


class MultiBlock(Section):
    """Several target blocks, one context block without them (paper, section 3)."""

    name: Literal["multiblock"]
    """multi-block masks"""
    num_targets: Count
    """target blocks per image"""
    target_scale: Pair
    """area of a target block, as a share of the grid of patches"""
    target_aspect: Pair
    """height / width of a target block"""
    context_scale: Pair
    """area of the context block, as a share of the grid"""
    context_patches: Count | None
    """context patches per image (surplus=keep: at least); null: about what the reference keeps on average"""
    surplus: Literal["drop", "keep"]
    """more context patches than that: drop some at random, or keep all, padded, with an attention mask"""


class Rasterized(Section):
    """One quadrant as context, the three others as targets (paper, table 6)."""

    name: Literal["rasterized"]
    """quadrants"""
    context_patches: Count | None
    """context patches per image; null: the whole quadrant"""


class Random(Section):
    """Patches drawn without structure (paper, table 6)."""

    name: Literal["random"]
    """random patches"""
    ratio: Annotated[float, Field(gt=0, lt=1)]
    """share of the patches that are targets"""
    context_patches: Count | None
    """context patches per image; null: all the others"""


class Reference(Section):
    """The reference implementation's multi-block masks, bug for bug (docs/masking.md)."""

    name: Literal["reference"]
    """the reference implementation's sampler"""
    num_targets: Count
    """target blocks per image"""
    target_scale: Pair
    """area of a target block, as a share of the grid of patches"""
    target_aspect: Pair
    """height / width of a target block"""
    context_scale: Pair
    """area of the context block, as a share of the grid"""
    min_keep: Annotated[int, Field(ge=0)]
    """a mask needs more patches than this"""


class Objective(Section):
    """What is predicted and how far off it is."""

    distance: Literal["l2", "smooth_l1", "l1"]
    """squared L2 (paper), smooth L1 (reference code) or L1"""
    target: Literal["output", "input", "pixels"]
    """mask the target encoder's output (paper), its input (table 11), or predict normalised pixels (table 7)"""
    normalize_targets: bool
    """layer norm on the target encoder's output"""
    variance_weight: Weight
    """weight of the variance regulariser on average-pooled features; 0 as published"""
    covariance_weight: Weight
    """weight of the covariance regulariser on average-pooled features; 0 as published"""
    regularize: Literal["context", "predictions"]
    """the features that the regularisers act on"""


class Optimizer(Section):
    """AdamW; biases and 1-D parameters are not decayed."""

    lr: Annotated[float, Field(gt=0)]
    """peak learning rate"""
    lr_per_256: bool
    """multiply lr by data.batch_size / 256"""
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    """decay rates of the moments"""
    eps: Annotated[float, Field(gt=0)]
    """added to the denominator"""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None
    """clip the gradient's norm; null as published"""


class LearningRate(Section):
    """The learning rate's schedule; start and end are factors of optimizer.lr."""

    shape: Literal["cosine", "linear", "constant", "cooldown"]
    """after the warm-up: towards end along a curve, constant, or constant with a linear cooldown"""
    start: Weight
    """factor at the start of the warm-up"""
    end: Weight
    """factor at the end of the run"""


class Curve(Section):
    """A value over the whole run."""

    shape: Literal["cosine", "linear", "constant"]
    """the curve from start to end; constant stays at start"""
    start: Weight
    """value at the first step"""
    end: Weight
    """value at the last step"""


class Schedule(Section):
    """The run's length and what changes along it. Lengths in steps win over lengths in epochs."""

    epochs: Annotated[float, Field(gt=0)] | None
    """passes over the training images"""
    max_steps: Count | None
    """optimizer steps; wins over epochs"""
    warmup_epochs: Duration
    """length of the learning rate's linear warm-up"""
    warmup_steps: Annotated[int, Field(ge=0)] | None
    """the same in steps; wins over warmup_epochs"""
    cooldown_epochs: Duration
    """length of the final linear cooldown (learning_rate.shape=cooldown)"""
    cooldown_steps: Annotated[int, Field(ge=0)] | None
    """the same in steps; wins over cooldown_epochs"""
    learning_rate: LearningRate
    weight_decay: Curve
    momentum: Curve


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
    """auto: bf16-mixed where the device has bf16, else 32-true. bf16-true: all in bf16, from fp32 weights"""
    accumulation: Count
    """micro-batches per step and device"""
    compile: bool
    """torch.compile each block"""
    checkpointing: bool
    """recompute activations in the backward pass: less memory, a third more time"""


class CsvLogger(Section):
    """metrics.csv in the run's folder, which every run writes."""

    name: Literal["csv"]
    """no other logger"""


class WandbLogger(Section):
    """Weights & Biases, beside metrics.csv."""

    name: Literal["wandb"]
    """Weights & Biases"""
    project: Text
    """project"""
    entity: Text | None
    """user or team; null: your default"""
    group: Text | None
    """group of runs"""
    tags: list[Text]
    """tags"""
    notes: Text | None
    """notes"""
    run_name: Text | None
    """name; null: the run folder's"""
    mode: Literal["online", "offline", "disabled"]
    """offline keeps everything in the run's folder"""


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
    evaluate_every_epochs: Annotated[float, Field(gt=0)] | None
    """epochs between evaluations by task where images have labels; null: only at the end"""


class Knn(Section):
    """Weighted k-nearest-neighbour classification of frozen, average-pooled features."""

    name: Literal["knn"]
    """k nearest neighbours"""
    k: Annotated[list[Count], Field(min_length=1)]
    """neighbours; one result each"""
    headline: Count
    """the k that is reported during training"""
    temperature: Annotated[float, Field(gt=0)]
    """of the softmax over cosine similarities that weights votes"""
    center: bool
    """subtract the training features' mean first"""
    batch_size: Count
    """images per forward pass"""


class Logistic(Section):
    """Logistic regression (L-BFGS) on frozen, average-pooled, standardised features."""

    name: Literal["logistic"]
    """logistic regression"""
    l2: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """strengths of the L2 penalty per image (scikit-learn's C = 1 / (l2 x images)); held-out training images choose"""
    holdout: Annotated[float, Field(gt=0, lt=1)]
    """share of the training images that chooses the strength"""
    max_iterations: Count
    """of L-BFGS"""
    batch_size: Count
    """images per forward pass"""


Masking = Annotated[MultiBlock | Rasterized | Random | Reference, Field(discriminator="name")]
Logger = Annotated[CsvLogger | WandbLogger, Field(discriminator="name")]
Task = Annotated[Knn | Logistic, Field(discriminator="name")]


class TrainConfig(Section):
    """What `python train.py` takes."""

    run_dir: Text | None
    """folder of this run; null: a new one under runs/"""
    resume: Text | None
    """run folder or checkpoint to go on from"""
    force: bool
    """resume even with changed values or images that change the result"""
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
    task: Task


class EvaluateConfig(Section):
    """What `python evaluate.py` takes."""

    checkpoint: Text
    """run folder, checkpoint or encoder.safetensors"""
    encoder: Literal["target", "context"]
    """which encoder of a checkpoint to evaluate; the paper: target"""
    output: Text | None
    """folder for metrics.json; null: evaluation/TASK in the run's folder, or beside the file"""
    baselines: bool
    """also evaluate a random-init encoder and raw pixels"""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """of the random-init encoder and of held-out splits"""
    data: Data
    task: Task
    hardware: Hardware
