"""Configuration of the evaluation tasks."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ijepa.config.custom import TARGET, Custom
from ijepa.config.fields import (
    LARGEST,
    Count,
    FileTaskSection,
    NonNegative,
    Pair,
    Penalty,
    Positive,
    Section,
    Several,
    TaskSection,
    Text,
)
from ijepa.config.pictures import Pictures
from ijepa.config.tuning import Finetune, Lowshot, LowshotFinetune
from ijepa.util.errors import ConfigError, show


class Knn(TaskSection):
    """Weighted k-nearest-neighbour classification of frozen, average-pooled features."""

    k: Annotated[list[Count], Field(min_length=1)]
    """numbers of neighbours; each gives a result"""
    headline: Count
    """the k reported during training"""
    temperature: Annotated[float, Field(ge=1e-3, le=LARGEST)]
    """temperature of the softmax over cosine similarities that weights the votes"""
    center: bool
    """subtract the mean of the training features first"""
    batch_size: Count
    """images per forward pass"""

    def check(self, key: str, depth: int) -> None:
        if self.headline not in self.k:
            raise ConfigError(f"{key}.headline", self.headline, f"not in {key}.k={show(self.k)}; use one of them")


class Logistic(TaskSection):
    """Logistic regression (L-BFGS) on frozen, average-pooled, standardised features."""

    l2: Annotated[list[Penalty], Field(min_length=1)]
    """L2 penalties per image (scikit-learn's C = 1 / (l2 x images)); chosen on held-out training images"""
    holdout: Annotated[float, Field(gt=0, lt=1)]
    """fraction of the training images that is held out to choose the penalty"""
    max_iterations: Count
    """maximum number of L-BFGS iterations"""
    components: Count | None
    """wider features, such as raw pixels, are reduced to this many principal components; null: never"""
    batch_size: Count
    """images per forward pass"""


class Linear(TaskSection):
    """Linear probes: many heads trained at once on frozen features; the best is chosen on held-out training images."""

    epochs: Count
    """epochs over the training images"""
    batch_size: Count
    """images per step, capped at an eighth of the training images"""
    optimizer: Literal["sgd", "lars"]
    """SGD with Nesterov momentum, or LARS"""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """momentum of the optimiser"""
    lr: Annotated[list[Positive], Field(min_length=1)]
    """learning rates per 256 images of a batch; a head is trained for each combination with the next three keys"""
    weight_decay: Annotated[list[NonNegative], Field(min_length=1)]
    """weight decays (not applied to biases)"""
    layers: Annotated[list[Count], Field(min_length=1)]
    """numbers of last blocks whose average-pooled patches are concatenated (paper: 1 and 4)"""
    batch_norm: Annotated[list[bool], Field(min_length=1)]
    """batch norm of the features, without learnt weights"""
    milestones: list[Count] | None
    """epochs after which the learning rate is divided by ten; null: cosine decay to lr_end"""
    lr_end: NonNegative
    """final value of the cosine, as a fraction of the learning rate"""
    crop_scale: Pair | None
    """range of a random crop's area, as a fraction of the image; null: no crop, as in evaluation"""
    flip: bool
    """random horizontal flip"""
    holdout: Annotated[float, Field(gt=0, lt=1)]
    """fraction of the training images that is held out to choose the head"""
    labels: list[Text] | None
    """label sets; null: all"""


class Counting(Linear):
    """The linear probe that counts objects (Clevr/Count)."""


class Distance(Linear):
    """The linear probe for the distance of the nearest object (Clevr/Dist)."""


class Attentive(TaskSection):
    """Attentive probes: a learnt query attends to frozen patches; the best is chosen on held-out training images."""

    epochs: Count
    """epochs over the training images"""
    warmup_epochs: NonNegative
    """epochs of linear learning rate warm-up, before cosine decay to zero"""
    batch_size: Count
    """images per step, capped at an eighth of the training images"""
    lr: Annotated[list[Positive], Field(min_length=1)]
    """AdamW's learning rates, as for fine-tuning; a probe is trained for each"""
    weight_decay: Annotated[list[NonNegative], Field(min_length=1)]
    """weight decays; combined with each learning rate"""
    crop_scale: Pair | None
    """range of a random crop's area, as a fraction of the image; null: no crop, as in evaluation"""
    flip: bool
    """random horizontal flip"""
    holdout: Annotated[float, Field(gt=0, lt=1)]
    """fraction of the training images that is held out to choose the probe"""


class Retrieval(TaskSection):
    """The nearest training images of validation images, or of others; with labels, how many share the class."""

    query: Text | None = None
    """image, or folder of images, whose neighbours are sought; null: the validation images"""

    neighbours: Count
    """nearest neighbours per image"""
    queries: Count
    """query images in the picture"""
    batch_size: Count
    """images per forward pass"""


class Duplicates(FileTaskSection):
    """Near-duplicates: pairs of images with very similar features, among all and between training and validation."""

    threshold: Annotated[float, Field(gt=0, le=1)]
    """smallest cosine similarity of a pair, of features less their mean"""
    max_pairs: Count
    """pairs to list, at most: the most similar ones"""
    shown: Count
    """pairs in the picture"""


class Map(FileTaskSection):
    """A page with a 2-D map of images by their features, and a list of outliers."""

    images: Count
    """images on the map, at most, evenly spaced among all"""
    neighbours: Count
    """nearest neighbours whose mean distance tells how isolated an image is"""
    perplexity: Positive
    """t-SNE's number of effective neighbours"""


class Export(FileTaskSection):
    """Average-pooled features of all images, with their names."""

    format: Literal["npz", "parquet"]
    """file format; parquet needs pyarrow"""


class Dense(TaskSection):
    """Dense linear probes: a linear layer per patch, upsampled to the image; the best is chosen on held-out images."""

    epochs: Count
    """epochs over the training images"""
    min_steps: Count
    """minimum number of steps; small data sets get more epochs"""
    batch_size: Count
    """images per step, capped at an eighth of the training images"""
    lr: Annotated[list[Positive], Field(min_length=1)]
    """AdamW's learning rates, with cosine decay to 0; one head for each combination with the next three keys"""
    weight_decay: Annotated[list[NonNegative], Field(min_length=1)]
    """weight decays (not applied to biases)"""
    layers: Annotated[list[Count], Field(min_length=1)]
    """numbers of last blocks whose patch features are concatenated"""
    batch_norm: Annotated[list[bool], Field(min_length=1)]
    """batch norm over the batch's patches, without learnt weights"""
    holdout: Annotated[float, Field(gt=0, lt=1)]
    """fraction of the training images that is held out to choose the head"""
    examples: Count
    """validation images in the picture"""


class Depth(Dense):
    """Depth of every pixel, from frozen patch features."""


class Segmentation(Dense):
    """The class of every pixel, from frozen patch features."""


class Decode(TaskSection):
    """How close the pictures that a decoder draws of held-out blocks are to the blocks, and what they show."""

    blocks: Several
    """held-out blocks, at most, one per image"""
    samples: Annotated[int, Field(ge=2, le=64, strict=True)]
    """pictures drawn of each representation"""
    label: Text | None
    """what a classifier should read from the pictures: a map of the images (scenes: colour, segmentation) or a label
    set; null: the first of these that there is"""
    object_share: Annotated[float, Field(ge=0, le=1)]
    """smallest part of a block that objects cover, where images have a map"""
    visible_share: Annotated[float, Field(ge=0, le=1)]
    """smallest part of the object's pixels that the context shows, where images have a map; 0: the context may not show
    it"""
    classifier_epochs: Count
    """epochs of the classifier, a small convolutional network, over the blocks of training images"""
    train_blocks: Count
    """blocks of training images, at most: for the classifier, and to look for the nearest of each picture"""
    fid: Literal["features", "inception"] | None
    """Frechet distance of pictures and blocks: in the classifier's features, or Inception's, which are downloaded"""
    lpips: bool
    """also measure LPIPS (AlexNet, whose weights are downloaded)"""
    shown: Count
    """blocks in the figures"""
    batch_size: Several
    """images per forward pass"""


class Paper(Section):
    """All of the paper's evaluations for which the data has labels or maps, in the layout of the paper's tables."""

    figures: bool
    """also show the paper's own figures, on ImageNet and CLEVR"""


class Tasks(Section):
    """The evaluation tasks; during training, the first one is reported."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Custom] = Field(init=False)  # users' tasks, by name

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
    """nearest neighbours"""
    duplicates: Duplicates | None = None
    """near-duplicates"""
    map: Map | None = None
    """page with a map of images, and outliers"""
    depth: Depth | None = None
    """depth of every pixel"""
    segmentation: Segmentation | None = None
    """class of every pixel"""
    features: Export | None = None
    """export of features to a file"""
    pictures: Pictures | None = None
    """pictures of what the encoder sees"""
    decode: Decode | None = None
    """pictures that a decoder draws, and how close they are"""
    paper: Paper | None = None
    """all of the paper's evaluations as one table, with the paper's figures"""

    @model_validator(mode="before")
    @classmethod
    def _own(cls, values: Any) -> Any:
        """Raises ConfigError for keys that are neither a task nor a user's class."""
        for name, value in values.items() if isinstance(values, dict) else ():
            is_custom = isinstance(value, Custom) or (isinstance(value, dict) and TARGET in value)
            if name not in cls.model_fields and not is_custom:
                known = ", ".join(cls.model_fields)
                raise ConfigError(
                    f"task.{name}", value, f"no such task; try {known}, or a class of your own with {TARGET}"
                )
        return values

    def chosen(self) -> dict[str, TaskSection | Custom]:
        """The configured tasks, by name."""
        return {name: task for name, task in self if task is not None and name != "paper"}

    def with_metrics(self) -> dict[str, TaskSection | Custom]:
        """The configured tasks that give metrics."""
        return {name: task for name, task in self.chosen().items() if not isinstance(task, FileTaskSection)}

    def first_only(self) -> "Tasks":
        """Only the first of the tasks that give metrics; its first metric is the main metric."""
        return Tasks(**dict([next(iter(self.with_metrics().items()))]))
