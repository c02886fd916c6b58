"""Records: what a stage writes beside its outputs, as strict types; the report reads the same types back.

A stage builds a record and writes it with `record.write(path)`; a reader gets it with `Evaluation.read(path)`. Every
number in a record is finite and in its range, and a stored mean or deviation is the one of the stored seeds.
Recalls and accuracies are in percent everywhere. IR@K: a text query ranks images; TR@K: an image query ranks captions.
"""

import math
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from repblend.sections import NAME, Count, Name
from repblend.store import JSON, read_json, write_json

RecallName = Literal["ir_at_1", "ir_at_5", "ir_at_10", "tr_at_1", "tr_at_5", "tr_at_10", "mean_recall"]
RECALLS: tuple[RecallName, ...] = get_args(RecallName)
TOLERANCE = 1e-3
"""How far, in percentage points, a stored mean or deviation may be from what the stored seeds give."""
RUN_AGAIN = "Delete the file and run `repro run`"

Percent = Annotated[float, Field(ge=0, le=100)]
Read = TypeVar("Read")
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Record(BaseModel):
    """Base of every record and of its parts: strict about types, closed to unknown keys, to NaN and to infinity."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    def to_json(self) -> JSON:
        return self.model_dump(mode="json", by_alias=True)

    def write(self, path: Path) -> None:
        """Write the record as canonical JSON, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path, mend: str = RUN_AGAIN) -> Self:
        """Read a record; `mend` says in errors what to do about a wrong file.

        Raises:
            ValueError: the file is missing or no JSON, a key is missing or unknown, or a value breaks its rule; the
                message names the file and every such key.
        """
        return read_typed(path, TypeAdapter(cls), cls.__name__, mend)


def read_typed(path: Path, kind: TypeAdapter[Read], name: str, mend: str = RUN_AGAIN) -> Read:
    """Read a JSON file of this project's own; it may have been changed since.

    Args:
        kind: what it has to hold.
        name: how errors call that, after "not as a".
        mend: as of `Record.read`, whose errors this raises.
    """
    try:
        return kind.validate_python(read_json(path), strict=True)
    except ValidationError as error:
        lines = [f"{path}: {error.error_count()} value(s) that are not as a {name} has them"]
        lines += ["  " + _explain(problem) for problem in error.errors(include_url=False)]
        raise ValueError("\n".join([*lines, mend])) from error


def _explain(problem: Any) -> str:
    key = ".".join(map(str, problem["loc"])) or "(the whole file)"
    of_a_value = problem["type"] not in ("missing", "value_error")
    return f"{key}: {problem['msg']}" + (f" (found {reprlib.repr(problem['input'])})" if of_a_value else "")


def check_close(key: str, stored: float, expected: float) -> None:
    """Raise `ValueError` if a stored mean or deviation is not what the stored values give."""
    if not math.isclose(stored, expected, rel_tol=0, abs_tol=TOLERANCE):
        raise ValueError(f"{key} is {stored}, but its values give {expected:.4f}")


# Where a record comes from.


class HubCheckpoint(Record):
    """Weights of an encoder that come from a model hub."""

    repository: str
    revision: str
    sha256: dict[str, Sha256]


class Provenance(Record):
    """What decides the bytes of a stage's outputs, but for its source code, whose hashes its settings file holds."""

    stage: str
    cell: str | None
    command: str
    """What runs the stage, in the workspace's folder."""
    seed: int
    device: str
    """`cpu`, or the GPU by name."""
    parameters: dict[str, Any]
    """The sections that the stage uses, defaults included; of `distill` the settings of this cell."""
    inputs: dict[str, Sha256]
    """File, as seen from the workspace -> SHA-256."""
    libraries: dict[str, str]
    """Package that computes or stores numbers -> version."""
    requirements_sha256: Sha256 | None
    """Of the clone's list of locked packages."""
    checkpoints: dict[str, HubCheckpoint] = {}
    """Encoder -> its weights, where they come from a hub."""


class Traced(Record):
    """Any record of a stage."""

    provenance: Provenance


class CellName(Record):
    """The cell of the grid that a record belongs to."""

    method: Name
    budget: Count


class Machine(Record):
    """Where a stage ran."""

    processor: str
    generation: str | None = None
    """What tells processors of one name apart, `family 25, model 17`; lines that are older than this key lack it."""
    cores: int | None
    system: str


class GpuUse(Record):
    """The GPU that a stage ran on."""

    name: str
    cuda: str | None
    peak_memory_mib: float


class Run(Record):
    """A line of `runs.jsonl`: what was particular to the last run of a stage."""

    stage: Annotated[str, Field(pattern=rf"^{NAME}(@{NAME})?$", max_length=200)]
    """As DVC calls it: `encode`, or `distill@repblend-100`."""
    parameters_sha256: Sha256 | None = None
    """Of its seed and parameters (`Settings`); lines that are older than this key lack it."""
    commit: str | None
    dirty: bool | None
    """Whether tracked files differed from the commit; null where git could not be asked."""
    image_digest: str | None
    """Of the container's image; null outside of a container."""
    started: str
    wall_seconds: float
    beside: int = 1
    """How many stages the machine's processors had at once, at most: their seconds overlap."""
    resumed: bool = False
    """Whether a run before it was stopped: it may have gone on from there, in less time than the stage takes."""
    peak_memory_mib: float
    machine: Machine
    python: str
    gpu: GpuUse | None = None

    @property
    def computed_on(self) -> str:
        """The GPU's name, or the processor's with its generation."""
        if self.gpu:
            return self.gpu.name
        machine = self.machine
        return f"{machine.processor} ({machine.generation})" if machine.generation else machine.processor


class Imported(Record):
    """Files of the official release that a stage took in place of computing."""

    files: dict[str, Sha256]
    sha256: Sha256


# Recalls, which several stages measure.


class Recalls(Record):
    """The six recalls and their mean, in percent."""

    ir_at_1: Percent
    ir_at_5: Percent
    ir_at_10: Percent
    tr_at_1: Percent
    tr_at_5: Percent
    tr_at_10: Percent
    mean_recall: Percent
