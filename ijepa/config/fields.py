"""Types of single values, and the base class of all sections."""

import math
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ijepa.util.errors import ConfigError, show
from ijepa.util.sizes import MAX_SIDE

Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]
Trust = Annotated[list[Text], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Folder = Annotated[Text, AfterValidator(lambda path: str(Path(path).expanduser().absolute()))]
LARGEST = 1e9
"""Of rates, weights and lengths: products of several are still numbers of float32, and steps still fit into 64 bits."""
MAX_COUNT = 10**12
MAX_WORKERS = 2**10
MAX_ASPECT = 1000
Count = Annotated[int, Field(ge=1, le=MAX_COUNT, strict=True)]
Several = Annotated[int, Field(ge=2, le=MAX_COUNT, strict=True)]
CountOrZero = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Workers = Annotated[int, Field(ge=0, le=MAX_WORKERS)]
Positive = Annotated[float, Field(gt=0, le=LARGEST)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST)]
Signed = Annotated[float, Field(ge=-1e30, le=1e30)]
"""In units of images; far enough from the limits of float32 to be squared in part."""
Scale = Annotated[float, Field(ge=1e-30, le=1e30)]
"""A positive number in units of images or gradients, which others are divided by."""
Ratio = Annotated[float, Field(gt=0, le=1024)]
Penalty = Annotated[float, Field(ge=1e-20, le=1e20)]
Pair = Annotated[list[Annotated[float, Field(ge=-MAX_ASPECT, le=MAX_ASPECT)]], Field(min_length=2, max_length=2)]
FractionalPoint = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)]
Size = Annotated[
    list[Annotated[int, Field(ge=1, le=MAX_SIDE)]],
    BeforeValidator(lambda value: [value, value] if isinstance(value, int) else value),
    Field(min_length=2, max_length=2),
]


class Section(BaseModel):
    """A node of the configuration; the docstring below a field is its help text."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


class TaskSection(Section):
    """A task's options."""

    def check(self, key: str, depth: int) -> None:
        """Checks the section ``key`` for an encoder of ``depth`` blocks; raises ConfigError."""
        scale = getattr(self, "crop_scale", None)
        if scale is not None:
            check_range(f"{key}.crop_scale", scale, most=1.0)
        layers = getattr(self, "layers", None)
        if layers is not None and max(layers) > depth:
            raise ConfigError(f"{key}.layers", layers, f"the encoder has {depth} blocks; try [1,{depth}]")
        epochs, warmup_epochs = getattr(self, "epochs", None), getattr(self, "warmup_epochs", None)
        if epochs is not None and warmup_epochs is not None and warmup_epochs > epochs:
            raise ConfigError(f"{key}.warmup_epochs", warmup_epochs, f"more than epochs={epochs}; lower it")


class FileTaskSection(TaskSection):
    """The options of a task that writes files from features and gives no metric."""

    batch_size: Count
    """images per forward pass"""


def check_range(key: str, limits: list[float], most: float | None) -> None:
    """Raises ConfigError unless 0 < low <= high <= ``most`` (None: aspect ratios, 1 / `MAX_ASPECT` to `MAX_ASPECT`)."""
    low, high = limits
    if not 0 < low <= high or (most is not None and high > most):
        bound = "" if most is None else f" <= {show(most)}"
        raise ConfigError(key, limits, f"needs 0 < low <= high{bound}")
    if most is None and low < 1 / MAX_ASPECT:
        raise ConfigError(key, limits, f"needs {1 / MAX_ASPECT:g} <= low <= high <= {MAX_ASPECT}")


def check_width(key: str, width: int, heads: int, heads_key: str = "model.heads") -> None:
    """Raises ConfigError unless ``width`` is a multiple of 4, for position embeddings, and of ``heads``."""
    step = math.lcm(4, heads)
    if width % step:
        nearest = max(round(width / step), 1) * step
        raise ConfigError(key, width, f"not a multiple of 4 and of {heads_key}={heads}; try {nearest}")
