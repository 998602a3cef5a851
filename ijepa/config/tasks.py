"""What is evaluated."""

from typing import Annotated

from pydantic import Field

from ijepa.config.fields import Count, Section


class Knn(Section):
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


class Logistic(Section):
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


class Tasks(Section):
    """What is evaluated; the first of several is what training reports along the way."""

    knn: Knn | None = None
    """k nearest neighbours"""
    logistic: Logistic | None = None
    """logistic regression"""

    def chosen(self) -> list[Knn | Logistic]:
        """The tasks that the configuration has."""
        return [task for task in (self.knn, self.logistic) if task is not None]
