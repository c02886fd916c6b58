"""`params.yaml`, read once at the edge into frozen, typed classes: everything that can change a number.

Parsed by the YAML 1.2 rules that DVC uses (`1e-3` is a number, `on` is text). Types are strict: a string where a
number is expected is an error, never converted, and so is a key that no field knows. Library functions take single
values from here, not these objects.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
PositiveReal = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
LossName = Literal["kl", "bce", "wbce", "infonce", "cwcl", "mse"]


class Section(BaseModel):
    """Base of every section: frozen, strict about types, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Compute(Section):
    """How numbers are computed. These change the last bits of results, so they are parameters."""

    threads: Positive
    """CPU threads of every tensor operation; the order of sums, and so the last bits, depend on it."""
    encoder_chunk: Positive
    """Images that pass through an image encoder at once."""


class Data(Section):
    """Which dataset, and how its images and captions are prepared (PAPER.md section 3)."""

    name: Literal["openmoji"]
    image_size: Positive
    """Height and width in pixels."""
    num_val: Positive
    """Validation images."""
    num_test: Positive
    """Test images."""
    max_train: Positive | None
    """Keep only the first this many training images (for trying things out); null keeps all."""
    max_caption_words: Positive
    """Captions are cut to this many words."""


class Views(Section):
    """Augmented views of the training images, made once and shared by all experts (DESIGN section 6)."""

    num: Positive
    """Views per training image. View 0 is the image itself."""
    crop_scale_min: Annotated[float, Field(gt=0, le=1)]
    """Smallest share of the image's area that a random crop keeps."""
    flip: Fraction
    """Chance of a left-right flip."""


class Encode(Section):
    """Frozen encoders, by their name in `repblend.encoders.registry`, and the feature caches made with them."""

    image_encoder: str
    text_encoder: str
    views: Views


class Heads(Section):
    """Projection heads of both modalities."""

    width: Positive
    """Output and hidden width of both heads."""


class Experts(Section):
    """Expert trajectories (PAPER.md section 5.4)."""

    num: Positive
    """Experts, each from its own initial heads."""
    epochs: Positive
    """Passes over the training pairs."""
    batch_size: Positive
    """Pairs per step; a last partial batch is dropped, as published."""
    lr: PositiveReal
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    temperature: PositiveReal
    snapshots_every: Positive
    """Steps from one snapshot to the next. The paper keeps one per epoch."""


class Grid(Section):
    """The cells that the pipeline runs: every method at every budget."""

    budgets: list[Positive]
    coresets: list[str]
    distilled: list[str]


class Params(Section):
    """All of `params.yaml`."""

    seed: int
    compute: Compute
    data: Data
    encode: Encode
    heads: Heads
    experts: Experts
    grid: Grid


def read_yaml(path: Path) -> Any:
    """Parse a YAML 1.2 file, with DVC's own parser.

    Raises:
        ValueError: the file is missing or not YAML; the message names the line.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. Run in the repository's folder") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ValueError(f"{path}, line {line}: expected YAML, {error.problem}") from error


def read_params(path: Path) -> Params:
    """Read and check `params.yaml`.

    Raises:
        ValueError: the file is missing or not YAML, or a key is unknown, absent or of the wrong type or range;
            the message lists every such key with the value found and the rule it breaks.
    """
    try:
        return Params.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ValueError(_explain(path, error)) from error


def _explain(path: Path, error: ValidationError) -> str:
    lines = [f"{path}: {error.error_count()} parameter(s) to mend"]
    for problem in error.errors(include_url=False):
        key = ".".join(map(str, problem["loc"])) or "(the whole file)"
        found = "" if problem["type"] == "missing" else f" (found {problem['input']!r})"
        lines.append(f"  {key}: {problem['msg']}{found}")
    return "\n".join(lines)
