"""Types of single values, and the base class of all sections."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]
Folder = Annotated[Text, AfterValidator(lambda path: str(Path(path).expanduser().absolute()))]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
FractionalPoint = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)]
Size = Annotated[
    list[Annotated[int, Field(ge=1)]],
    BeforeValidator(lambda value: [value, value] if isinstance(value, int) else value),
    Field(min_length=2, max_length=2),
]
Count = Annotated[int, Field(ge=1, strict=True)]
Weight = Annotated[float, Field(ge=0)]
Duration = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A node of the configuration; the docstring below a field is its help text."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )
