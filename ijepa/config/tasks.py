"""What is evaluated."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ijepa.config.custom import TARGET, Custom
from ijepa.config.fields import Count, Pair, Section, TaskSection, Text, Weight
from ijepa.config.pictures import Pictures
from ijepa.util.errors import ConfigError, show


class Knn(TaskSection):
    """Weighted k-nearest-neighbour classification of frozen, average-pooled features."""

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

    def check(self, key: str, depth: int) -> None:
        if self.headline not in self.k:
            raise ConfigError(f"{key}.headline", self.headline, f"not among {key}.k={show(self.k)}")


class Logistic(TaskSection):
    """Logistic regression (L-BFGS) on frozen, average-pooled, standardised features."""

    l2: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """strengths of the L2 penalty per image (scikit-learn's C = 1 / (l2 x images)); held-out training images choose"""
    holdout: Annotated[float, Field(gt=0, lt=1)]
    """share of the training images that chooses the strength"""
    max_iterations: Count
    """of L-BFGS"""
    components: Count | None
    """wider features, raw pixels for example, are reduced to so many principal components; null: never"""
    batch_size: Count
    """images per forward pass"""


class Linear(TaskSection):
    """Linear classifiers trained at once on frozen features of augmented images; held-out training images choose."""

    epochs: Count
    """passes over the training images"""
    batch_size: Count
    """images per step, at most an eighth of the training images"""
    optimizer: Literal["sgd", "lars"]
    """SGD with Nesterov momentum, or LARS"""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """of either"""
    lr: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """learning rates per 256 images of a batch; each makes heads of its own, as do the next four"""
    weight_decay: Annotated[list[Weight], Field(min_length=1)]
    """of the weights, not the biases"""
    layers: Annotated[list[Count], Field(min_length=1)]
    """blocks from the last one back whose average-pooled patches are concatenated (paper: 1 and 4)"""
    batch_norm: Annotated[list[bool], Field(min_length=1)]
    """standardise features by the batch, without weights of its own"""
    milestones: list[Count] | None
    """epochs after which the learning rate falls by ten; null: a cosine, to lr_end"""
    lr_end: Weight
    """where the cosine ends, as a share of the learning rate"""
    crop_scale: Pair | None
    """share of an image's area that a crop shows; null: the whole image, as in evaluation"""
    flip: bool
    """mirror half of the images"""
    holdout: Annotated[float, Field(gt=0, lt=1)]
    """share of the training images that chooses the head, and is not trained on"""
    labels: list[Text] | None
    """label sets; null: all"""


class Counting(Linear):
    """The linear probe that counts objects (Clevr/Count)."""


class Distance(Linear):
    """The linear probe that tells how far the nearest object is (Clevr/Dist)."""


class Attentive(TaskSection):
    """A learnt query that reads frozen patches by cross-attention; held-out training images choose among several."""

    epochs: Count
    """passes over the training images"""
    warmup_epochs: Weight
    """of them in which the learning rate rises from zero, before its cosine to zero"""
    batch_size: Count
    """images per step, at most an eighth of the training images"""
    lr: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """AdamW's learning rates, as for fine-tuning; each makes a probe of its own"""
    weight_decay: Annotated[list[Weight], Field(min_length=1)]
    """with each of them"""
    crop_scale: Pair | None
    """share of an image's area that a crop shows; null: the whole image, as in evaluation"""
    flip: bool
    """mirror half of the images"""
    holdout: Annotated[float, Field(gt=0, lt=1)]
    """share of the training images that chooses the probe, and is not trained on"""


class FewLabels(TaskSection):
    """Which images have labels, several draws of them."""

    shares: list[Annotated[float, Field(gt=0, lt=1)]]
    """of each class's training images"""
    shots: list[Count]
    """images of each class"""
    lists: list[Text]
    """files of the names of labelled training images, a line each, as published for ImageNet"""
    draws: Count
    """of the labelled images; the mean is reported, and each in metrics.json"""


class Lowshot(FewLabels):
    """Logistic regression with few labels; cross-validation among them chooses the penalty."""

    l2: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """strengths of the L2 penalty per image"""
    folds: Annotated[int, Field(ge=2, strict=True)]
    """of the cross-validation"""
    max_iterations: Count
    """of L-BFGS"""
    components: Count | None
    """wider features are reduced to so many principal components; null: never"""
    batch_size: Count
    """images per forward pass"""


class Tuning(TaskSection):
    """Training of the whole encoder on labels, with AdamW and a linear head."""

    epochs: Count
    """passes over the labelled images"""
    warmup_epochs: Weight
    """of them in which the learning rate rises from zero"""
    batch_size: Count
    """images per step, at most an eighth of the labelled ones"""
    lr: Annotated[float, Field(gt=0)]
    """of the head after warm-up; where the batch is smaller, less by the root of the ratio"""
    lr_end: Weight
    """where its cosine ends, as a share of it"""
    weight_decay: Weight
    """of weights, not of biases and norms"""
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    """a layer's learning rate over that of the next one"""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """share of a target that is spread over all classes"""
    mixup: Weight
    """alpha of the Beta distribution that blends two images; 0: none"""
    cutmix: Weight
    """alpha of that which pastes a part of one into the other; 0: none. With both, one or the other at random"""
    drop_path: Annotated[float, Field(ge=0, lt=1)]
    """rate of stochastic depth in the last block; from 0 in the first"""
    randaugment: Text | None
    """RandAugment in timm's notation, rand-m9-mstd0.5-inc1; null: none"""
    crop_scale: Pair | None
    """share of an image's area that a crop shows; null: the whole image, as in evaluation"""
    flip: bool
    """mirror half of the images"""
    labels: list[Text] | None
    """label sets; null: all"""


class Finetune(Tuning):
    """Fine-tuning on all labels, a network for all label sets; from initial weights, the fully supervised baseline."""


class LowshotFinetune(FewLabels, Tuning):
    """Fine-tuning on few labels, a network for each label set, amount and draw."""


class Retrieval(TaskSection):
    """The nearest training images of validation images, as a picture; with labels, how many share the class."""

    neighbours: Count
    """of an image"""
    queries: Count
    """images in the picture"""
    batch_size: Count
    """images per forward pass"""


class Export(TaskSection):
    """Average-pooled features of all images, with their names."""

    format: Literal["npz", "parquet"]
    """of the file; parquet needs pyarrow"""
    batch_size: Count
    """images per forward pass"""


class Dense(TaskSection):
    """A linear layer on each patch's frozen features, upsampled to the image; many at once, held-out images choose."""

    epochs: Count
    """passes over the training images"""
    min_steps: Count
    """of fewer images more passes, for at least so many steps"""
    batch_size: Count
    """images per step, at most an eighth of the training images"""
    lr: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """learning rates of AdamW, along a cosine to 0; each makes heads of its own, as do the next three"""
    weight_decay: Annotated[list[Weight], Field(min_length=1)]
    """of the weights, not the biases"""
    layers: Annotated[list[Count], Field(min_length=1)]
    """blocks from the last one back whose patch features are concatenated"""
    batch_norm: Annotated[list[bool], Field(min_length=1)]
    """standardise features by the batch's patches, without weights of its own"""
    holdout: Annotated[float, Field(gt=0, lt=1)]
    """share of the training images that chooses the head, and is not trained on"""
    examples: Count
    """validation images in the picture"""


class Depth(Dense):
    """Depth of every pixel, from frozen patch features."""


class Segmentation(Dense):
    """The class of every pixel, from frozen patch features."""


class Paper(Section):
    """Tasks that the images do not allow are left out; results in the layout of the paper's tables."""

    figures: bool
    """with the paper's own, on ImageNet and CLEVR, below"""


class Tasks(Section):
    """What is evaluated; the first of several is what training reports along the way."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Custom] = Field(init=False)  # tasks of the user's own, by _target_

    knn: Knn | None = None
    """k nearest neighbours"""
    logistic: Logistic | None = None
    """logistic regression"""
    linear: Linear | None = None
    """linear probe"""
    count: Counting | None = None
    """linear probe of the number of objects"""
    distance: Distance | None = None
    """linear probe of the nearest object's distance"""
    attentive: Attentive | None = None
    """attentive probe"""
    lowshot: Lowshot | None = None
    """logistic regression with few labels"""
    lowshot_finetune: LowshotFinetune | None = None
    """fine-tuning with few labels"""
    finetune: Finetune | None = None
    """fine-tuning"""
    retrieval: Retrieval | None = None
    """nearest neighbours as a picture"""
    depth: Depth | None = None
    """depth of every pixel"""
    segmentation: Segmentation | None = None
    """class of every pixel"""
    features: Export | None = None
    """features to a file"""
    pictures: Pictures | None = None
    """pictures of what the encoder sees"""
    paper: Paper | None = None
    """one table of all, beside the paper's own figures"""

    @model_validator(mode="before")
    @classmethod
    def _own(cls, values: Any) -> Any:
        """Refuses further keys that are no tasks of the user's own."""
        for name, value in values.items() if isinstance(values, dict) else ():
            own = isinstance(value, Custom) or (isinstance(value, dict) and TARGET in value)
            if name not in cls.model_fields and not own:
                known = ", ".join(cls.model_fields)
                raise ConfigError(f"task.{name}", value, f"no such task; there are {known}, or your own with {TARGET}")
        return values

    def chosen(self) -> dict[str, TaskSection | Custom]:
        """The tasks that the configuration has, by name."""
        return {name: task for name, task in self if task is not None and name != "paper"}

    def measured(self) -> dict[str, TaskSection | Custom]:
        """Those of them that have results, of images with labels."""
        return {name: task for name, task in self.chosen().items() if not isinstance(task, Export | Pictures)}

    def first(self) -> "Tasks":
        """The first of those alone: its first metric stands for all."""
        return Tasks(**dict([next(iter(self.measured().items()))]))
