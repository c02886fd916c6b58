"""What a stage of the unimodal pipeline gets: its parameters, its cells, and where files live."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from repblend.stages.context import Cell, StageContext, Workspace
from repblend.store import JSON
from repblend.ufc.params import UfcParams, read_ufc_params

SETS = ("ufc", "real", "random")
"""Sets of images that students train on: UFC's; the real images of UFC's without any compensator; and as many random
real images as the whole budget buys."""
LABELS = ("static", "dynamic", "hard")
"""Kinds of labels: one stored mean of the teachers' logits per image; the teachers' logits on every augmented batch;
and, as a baseline without teachers, the image's own class."""


@dataclass(frozen=True)
class StudentCell:
    """Students of one kind on one set with one kind of labels: `<set>+<labels>+<student>-<budget>`."""

    set: Cell
    labels: str
    student: str

    @classmethod
    def parse(cls, text: str) -> "StudentCell":
        """Read `<set>+<labels>+<student>-<budget>`, for example `ufc+static+resnet18-10`.

        Raises:
            ValueError: the text is not of this form, or its labels are of no known kind.
        """
        cell = Cell.parse(text)
        parts = cell.method.split("+")
        if len(parts) != 3 or parts[1] not in LABELS:
            raise ValueError(f"cell {text!r}: expected <set>+<labels>+<student>-<budget> with labels "
                             f"{', '.join(LABELS[:-1])} or {LABELS[-1]}, for example ufc+static+resnet18-10")
        return cls(Cell(parts[0], cell.budget), parts[1], parts[2])

    def __str__(self) -> str:
        return f"{self.set.method}+{self.labels}+{self.student}-{self.set.budget}"

    def to_json(self) -> JSON:
        return {"set": self.set.method, "labels": self.labels, "student": self.student, "budget": self.set.budget}


@dataclass(frozen=True)
class UfcPaths(Workspace):
    """Where everything lives in a workspace. `conf/ufc.dvc.yaml` names the same paths (a test compares them)."""

    @property
    def initial(self) -> Path:
        """The real images that compensators are added to (stage `initial`)."""
        return self.root / "initial"

    def teacher(self, architecture: str) -> Path:
        """Weights and statistics of a teacher (stage `teacher`)."""
        return self.root / "teachers" / f"{architecture}.safetensors"

    def compensators(self, architecture: str) -> Path:
        """The compensators of one teacher for every image index (stage `generate`)."""
        return self.root / "compensators" / f"{architecture}.safetensors"

    def set(self, cell: Cell) -> Path:
        """A folder of images to train on (stages `integrate` and `select`)."""
        return self.root / "sets" / str(cell)

    def labels(self, cell: Cell) -> Path:
        """The static labels of a set (stage `label`)."""
        return self.root / "labels" / f"{cell}.safetensors"

    def predictions(self, cell: StudentCell) -> Path:
        """What the first student of a cell says of test images (stage `validate`)."""
        return self.root / "predictions" / f"{cell}.safetensors"


@dataclass(frozen=True)
class UfcContext(StageContext):
    """Everything a stage's `run` needs."""

    cell: Cell | StudentCell | str | None
    """A set, students of one kind on a set, an architecture, or nothing."""
    params: UfcParams
    paths: UfcPaths

    package: ClassVar[str] = "repblend.ufc_stages"
    read = staticmethod(read_ufc_params)
    workspace = UfcPaths

    @classmethod
    def parse_cell(cls, stage: str, text: str) -> Cell | StudentCell | str:
        """Read an architecture (stages `teacher` and `generate`), or what students are of, or a set."""
        if stage in ("teacher", "generate"):
            return text
        return StudentCell.parse(text) if stage == "validate" else Cell.parse(text)

    def parameters(self, sections: Iterable[str]) -> JSON:
        """Return the named sections of the parameters."""
        found = ((name, getattr(self.params, name)) for name in sections)
        return {name: value.model_dump() if isinstance(value, BaseModel) else value for name, value in found}
