"""What every section of parameters is made of: strict types, closed keys, and fields that files may leave out."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
PositiveReal = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def optional(default: Any) -> Any:
    """Declare a field that files may leave out; dumps leave it out as well where it has its default.

    So a parameter that comes to be later changes neither the metrics nor the recorded stages of those who do without.
    """
    return Field(default=default, exclude_if=lambda value: value == default)


class Section(BaseModel):
    """Base of every section: frozen, strict about types, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
