"""Configuration of fine-tuning and of tasks with few labels."""

from typing import Annotated

from pydantic import Field

from ijepa.config.fields import MAX_COUNT, Count, NonNegative, Pair, Penalty, Positive, TaskSection, Text


class FewLabels(TaskSection):
    """Which images have labels, in several draws."""

    shares: list[Annotated[float, Field(gt=0, lt=1)]]
    """fractions of each class's training images"""
    shots: list[Count]
    """numbers of images per class"""
    lists: list[Text]
    """files with the names of labelled training images, one per line, as published for ImageNet"""
    draws: Count
    """random draws of the labelled images; the mean is reported, metrics.json has each"""


class Lowshot(FewLabels):
    """Logistic regression with few labels; the penalty is chosen by cross-validation among them."""

    l2: Annotated[list[Penalty], Field(min_length=1)]
    """L2 penalties per image"""
    folds: Annotated[int, Field(ge=2, le=MAX_COUNT, strict=True)]
    """folds of the cross-validation"""
    max_iterations: Count
    """maximum number of L-BFGS iterations"""
    components: Count | None
    """wider features are reduced to this many principal components; null: never"""
    batch_size: Count
    """images per forward pass"""


class Tuning(TaskSection):
    """Fine-tuning: the whole encoder and a linear head are trained on labels, with AdamW."""

    epochs: Count
    """epochs over the labelled images"""
    warmup_epochs: NonNegative
    """epochs of linear learning rate warm-up"""
    batch_size: Count
    """images per step, capped at an eighth of the labelled images"""
    lr: Positive
    """peak learning rate of the head; for smaller batches it is scaled by the square root of the ratio"""
    lr_end: NonNegative
    """final value of the cosine, as a fraction of lr"""
    weight_decay: NonNegative
    """weight decay (not applied to biases and norms)"""
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    """layer-wise learning rate decay: a layer's learning rate / that of the next layer"""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """label smoothing: fraction of the target that is spread over all classes"""
    mixup: NonNegative
    """mixup's alpha; 0: no mixup"""
    cutmix: NonNegative
    """CutMix's alpha; 0: no CutMix. With both, each batch uses one of them at random"""
    drop_path: Annotated[float, Field(ge=0, lt=1)]
    """stochastic depth rate of the last block; increases linearly from 0 in the first"""
    randaugment: Text | None
    """RandAugment in timm's notation, such as rand-m9-mstd0.5-inc1; null: none"""
    crop_scale: Pair | None
    """range of a random crop's area, as a fraction of the image; null: no crop, as in evaluation"""
    flip: bool
    """random horizontal flip"""
    labels: list[Text] | None
    """label sets; null: all"""


class Finetune(Tuning):
    """Fine-tuning on all labels, one network for all label sets; from random init: the fully supervised baseline."""

    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # default: runs older than this key
    """fraction of the training images that is held out to calibrate the classifier's probabilities; 0: none"""


class LowshotFinetune(FewLabels, Tuning):
    """Fine-tuning on few labels, one network for each label set, number of labels and draw."""
