"""What every section of parameters is made of: strict types and closed keys."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=-2**63, lt=2**63)]
Positive = Annotated[int, Field(gt=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
ImageSize = Annotated[int, Field(gt=0, le=4096)]
PositiveReal = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
Name = Annotated[str, Field(pattern=rf"^{NAME}$", max_length=100)]
"""What reaches a command, a path or a page: no sign that a shell, a file system, DVC or a page takes for its own.
(Pydantic's `$` is the end of the text, not that of a line.)"""
_PATH = r"[^\x00-\x1f\x7f]+"
FilePath = Annotated[str, Field(pattern=f"^{_PATH}$", max_length=4096)]
"""A path as it was typed, on one line; none reaches a command."""
EncoderName = Annotated[str, Field(
    pattern=rf"^{NAME}$|^{NAME}:{NAME}(:{NAME})?(/{NAME})?(@{NAME})?$|^{NAME}:(local-dir:|/|\./|\.\./){_PATH}$",
    max_length=4096)]
"""A declared encoder, a repository of the hub behind a library's prefix, or a folder behind one."""


class Section(BaseModel):
    """Base of every section: frozen, strict about types, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
