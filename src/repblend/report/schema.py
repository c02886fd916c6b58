"""What the metrics files must hold, as strict types. Keys that the report does not use are let through.

Recalls are in percent everywhere. IR@K: a text query ranks images; TR@K: an image query ranks captions.
"""

import base64
import binascii
import math
import reprlib
import statistics
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

RecallName = Literal["ir_at_1", "ir_at_5", "ir_at_10", "tr_at_1", "tr_at_5", "tr_at_10", "mean_recall"]
RECALLS: tuple[str, ...] = get_args(RecallName)
TOLERANCE = 1e-3
"""How far, in percentage points, a stored mean or deviation may be from what the stored seeds give."""
RUN_AGAIN = "Delete the file and run `repro run`"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Percent = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """Base of every part of a metrics file: strict about types, and closed to NaN and infinity."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class Provenance(Record):
    """Where a file comes from: the part of `repblend.stages.provenance` that the report shows."""

    stage: str
    command: str
    run: str
    seed: int
    parameters: dict[str, Any]
    inputs: dict[str, str]
    libraries: dict[str, str]


class Traced(Record):
    """Any metrics file."""

    provenance: Provenance


class CellName(Record):
    """The cell of the grid that a file belongs to."""

    method: str
    budget: Count


class Recalls(Record):
    """The six recalls and their mean, in percent."""

    ir_at_1: Percent
    ir_at_5: Percent
    ir_at_10: Percent
    tr_at_1: Percent
    tr_at_5: Percent
    tr_at_10: Percent
    mean_recall: Percent


class SeedRecalls(Recalls):
    """What one student reached at the epoch that its protocol chose."""

    epoch: Count


class Protocol(Record):
    """Every student under one protocol, with mean and sample standard deviation."""

    selected_on: Literal["val", "test"]
    seeds: list[SeedRecalls] = Field(min_length=1)
    mean: Recalls
    std: Recalls

    @model_validator(mode="after")
    def _agree(self) -> "Protocol":
        for name in RECALLS:
            values = [getattr(seed, name) for seed in self.seeds]
            check_close(f"mean.{name}", getattr(self.mean, name), statistics.fmean(values))
            if len(values) > 1:
                check_close(f"std.{name}", getattr(self.std, name), statistics.stdev(values))
        return self


def check_close(key: str, stored: float, expected: float) -> None:
    """Raise `ValueError` if a stored mean or deviation is not what the stored values give."""
    if not math.isclose(stored, expected, rel_tol=0, abs_tol=TOLERANCE):
        raise ValueError(f"{key} is {stored}, but its values give {expected:.4f}")


class Protocols(Record):
    """Both ways of choosing the epoch."""

    held_out: Protocol = Field(alias="held-out")
    faithful: Protocol


class Evaluation(Traced):
    """`metrics/evaluate/<cell>.json`, and `full-data.json`, where nothing is stored."""

    cell: CellName
    unit: Literal["percent"]
    num_pairs: Count
    stored_bytes: Count | None
    protocols: Protocols


class Chance(Traced):
    """`metrics/evaluate/chance.json`: the expected recalls of a random ranking, in closed form."""

    unit: Literal["percent"]
    expected: Recalls


class Series(Record):
    """Lists of one length, an entry per iteration."""

    iteration: list[Count]

    @model_validator(mode="after")
    def _equal_lengths(self) -> "Series":
        for name in type(self).model_fields:
            found = len(getattr(self, name))
            if found != len(self.iteration):
                raise ValueError(f"{name} has {found} entries, iteration has {len(self.iteration)}")
        return self


class Curves(Series):
    """What a distillation logs in every iteration."""

    matching_loss: list[float]
    matching_loss_img: list[float]
    matching_loss_txt: list[float]
    lr_img: list[float]
    lr_txt: list[float]


class Checkpoints(Series):
    """What a distillation measures where it validates its set."""

    val_mean_recall: list[Percent]
    intra_modal_similarity_img: list[float]
    intra_modal_similarity_txt: list[float]
    modality_gap: list[float]


class Distillation(Traced):
    """`metrics/distill/<cell>.json`."""

    cell: CellName
    num_pairs: Count
    iterations: Count
    chosen_iteration: Count
    curves: Curves
    checkpoints: Checkpoints

    @model_validator(mode="after")
    def _chosen_was_measured(self) -> "Distillation":
        if self.chosen_iteration not in self.checkpoints.iteration:
            raise ValueError(f"chosen_iteration is {self.chosen_iteration}, which is not in checkpoints.iteration")
        return self


class ImportedSet(Traced):
    """The same file for a set that was imported: it has no course."""

    cell: CellName
    num_pairs: Count
    imported: dict[str, Any]


def _png(text: str) -> str:
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error:
        content = b""
    if not content.startswith(PNG_SIGNATURE):
        raise ValueError("expected a PNG image in base64")
    return text


Png = Annotated[str, AfterValidator(_png)]


class NearestCaption(Record):
    """A training caption near a learned text."""

    caption: str
    cosine: float


class Specimen(Record):
    """One pair before and after distillation; of an imported set it is not known what was before."""

    index: Count
    initial_png: Png | None = None
    distilled_png: Png
    initial_caption: str | None = None
    nearest_captions: list[NearestCaption]


class Specimens(Traced):
    """`metrics/specimens/<cell>.json`: some pairs to look at, and the whole learned similarity."""

    cell: CellName
    pairs: list[Specimen]
    similarity: list[list[float]]
    definitions: dict[str, str]

    @model_validator(mode="after")
    def _similarity_is_square(self) -> "Specimens":
        size = len(self.similarity)
        for number, row in enumerate(self.similarity):
            if len(row) != size:
                raise ValueError(f"similarity has {size} rows, but row {number} has {len(row)} entries")
        return self


def check(path: Path, content: object, kind: type[Record], mend: str = RUN_AGAIN) -> None:
    """Check what a metrics file holds; `mend` says what to do if it is wrong.

    Raises:
        ValueError: a key is missing or a value breaks its rule; the message names the file and every such key.
    """
    try:
        kind.model_validate(content)
    except ValidationError as error:
        lines = [f"{path}: {error.error_count()} value(s) that the report cannot use"]
        lines += ["  " + _explain(problem) for problem in error.errors(include_url=False)]
        raise ValueError("\n".join([*lines, mend])) from error


def _explain(problem: Any) -> str:
    key = ".".join(map(str, problem["loc"])) or "(the whole file)"
    of_a_value = problem["type"] not in ("missing", "value_error")
    return f"{key}: {problem['msg']}" + (f" (found {reprlib.repr(problem['input'])})" if of_a_value else "")
