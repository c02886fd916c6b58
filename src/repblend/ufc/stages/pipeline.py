"""The unimodal pipeline: its cells, where files live, and what every stage is made of.

A new stage is a function in one of the rooms beside this one (`sets`, `teachers`, `students`), an entry in `STAGES`,
and an entry in `conf/ufc.dvc.yaml`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from repblend.grid import Cell
from repblend.runtime.context import StageContext, Workspace
from repblend.runtime.settings import Pipeline, Stage
from repblend.ufc.params import UfcParams, read_ufc_params
from repblend.ufc.records import StudentCellName

SETS = ("ufc", "real", "random")
"""Sets of images that students train on: UFC's; the real images of UFC's without any compensator; and as many random
real images as the whole budget buys."""
Labels = Literal["static", "dynamic", "hard"]
LABELS: tuple[Labels, ...] = get_args(Labels)
"""Kinds of labels: one stored mean of the teachers' logits per image; the teachers' logits on every augmented batch;
and, as a baseline without teachers, the image's own class."""


@dataclass(frozen=True)
class StudentCell:
    """Students of one kind on one set with one kind of labels: `<set>+<labels>+<student>-<budget>`.

    Sets of a further draw of real images are `ufc+seed-1` and so on.
    """

    set: Cell
    labels: Labels
    student: str

    @classmethod
    def parse(cls, text: str) -> "StudentCell":
        """Read `<set>+<labels>+<student>-<budget>`, for example `ufc+static+resnet18-10`; raises `ValueError` if the
        text is not of this form, or its labels are of no known kind.
        """
        cell = Cell.parse(text)
        parts = cell.method.rsplit("+", 2)
        if len(parts) != 3 or parts[1] not in LABELS:
            raise ValueError(f"cell {text!r}: expected <set>+<labels>+<student>-<budget> with labels "
                             f"{', '.join(LABELS[:-1])} or {LABELS[-1]}, for example ufc+static+resnet18-10")
        return cls(Cell(parts[0], cell.budget), LABELS[LABELS.index(parts[1])], parts[2])

    def __str__(self) -> str:
        return f"{self.set.method}+{self.labels}+{self.student}-{self.set.budget}"

    def draws(self, params: UfcParams) -> list["StudentCell"]:
        """Return this cell, of the first draw of real images, and those of all others."""
        return [StudentCell(drawn, self.labels, self.student) for drawn in draws_of(self.set, params)]

    @property
    def record(self) -> StudentCellName:
        """The cell as records name it."""
        return StudentCellName(set=self.set.method, labels=self.labels, student=self.student, budget=self.set.budget)


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
        """A folder of images to train on (stages `integrate` and `select`, whose records are those of `sets`)."""
        return self.root / "sets" / str(cell)

    def labels(self, cell: Cell) -> Path:
        """The static labels of a set (stage `label`)."""
        return self.root / "labels" / f"{cell}.safetensors"

    def predictions(self, cell: StudentCell) -> Path:
        """What the first student of a cell says of test images (stage `validate`)."""
        return self.root / "predictions" / f"{cell}.safetensors"


# Cells that the parameters give a stage.


def draws_of(cell: Cell, params: UfcParams) -> list[Cell]:
    """Return the sets that differ from this one, of the first draw, in the draw of their real images alone."""
    return [cell, *(cell.with_seed(number) for number in params.seeds)]


def _sets(*names: str) -> Callable[[UfcParams], list[Cell]]:
    return lambda params: [drawn for name in names for budget in params.budgets
                           for drawn in draws_of(Cell(name, budget), params)]


def students(params: UfcParams) -> list[StudentCell]:
    """Return every kind of students: on UFC's set and on random images with every kind of labels, and baselines."""
    validation = params.validation
    kinds: list[tuple[str, Labels]] = [(name, labels) for name in ("ufc", "random") for labels in validation.labels]
    kinds += [("real", "static"), ("random", "hard")]
    return [StudentCell(drawn, labels, student) for name, labels in kinds for student in validation.students
            for budget in params.budgets for drawn in draws_of(Cell(name, budget), params)]


def regions(params: UfcParams) -> list[StudentCell]:
    """Return whose decision regions are shown: those of the first student on every set with static labels."""
    return [StudentCell(drawn, "static", params.validation.students[0]) for budget in params.budgets
            for name in SETS for drawn in draws_of(Cell(name, budget), params)]


LIBRARY = ("records", "runtime", "data/image_store.py", "files.py", "schedules.py", "store.py",
           "streams.py", "tensors.py", "ufc/data.py", "ufc/generation.py", "ufc/glyphs.py", "ufc/integration.py",
           "ufc/networks.py", "ufc/objective.py", "ufc/readers.py", "ufc/records.py", "ufc/training.py",
           "ufc/transforms.py", "ufc/stages/setup.py")
"""What every stage is made of."""
OF_SETS = (*LIBRARY, "archives.py", "ufc/released.py", "ufc/stages/sets.py")
OF_TEACHERS = (*LIBRARY, "archives.py", "ufc/released.py", "ufc/validation.py", "ufc/stages/teachers.py")
OF_STUDENTS = (*LIBRARY, "ufc/validation.py", "ufc/stages/students.py")

STAGES = {
    "prepare": Stage(("compute", "data"), OF_SETS, function="sets.prepare"),
    "initial": Stage(("compute", "data", "teachers", "budgets", "seeds"), OF_SETS, function="sets.initial"),
    "teacher": Stage(("compute", "data", "teachers"), OF_TEACHERS, lambda params: params.teachers.architectures,
                     function="teachers.teacher"),
    "generate": Stage(("compute", "data", "teachers", "generation"), OF_TEACHERS,
                      lambda params: params.teachers.architectures, function="teachers.generate"),
    "integrate": Stage(("compute", "data", "teachers", "budgets", "generation"), OF_SETS, _sets("ufc"),
                       function="sets.integrate"),
    "select": Stage(("compute", "data", "teachers", "budgets", "generation"), OF_SETS, _sets("real", "random"),
                    function="sets.select"),
    "label": Stage(("compute", "data", "teachers"), OF_TEACHERS, _sets(*SETS), function="teachers.label"),
    "validate": Stage(("compute", "data", "teachers", "validation"), OF_STUDENTS, students,
                      function="students.validate"),
    "regions": Stage(("compute", "budgets", "seeds", "validation"), (*LIBRARY, "analysis", "ufc/stages/regions.py")),
    "report": Stage(("data", "teachers", "budgets", "seeds", "validation"),
                    ("records", "report", "runtime", "escape.py", "files.py", "grid.py", "methods.py", "store.py",
                     "titles.py", "ufc/report", "ufc/records.py", "ufc/stages/pipeline.py"),
                    module="repblend.ufc.report"),
}


def check(params: UfcParams, paths: UfcPaths) -> None:
    """Check the budgets against the published size of the data set, before teachers are trained for days.

    Raises:
        ValueError: a budget asks for more images of every class than the smallest can have, or for less than one that
            is stored with the compensators.
    """
    from repblend.costs import LABELLED  # slow to import

    train, _, classes = LABELLED[params.data.name]
    held_out = params.data.num_val if params.data.training_images == "without-val" else 0
    left, teachers = (train - held_out - (params.data.num_test or 0)) // classes, len(params.teachers.architectures)
    for budget in params.budgets:
        if budget > left:
            raise ValueError(f"budgets: {budget} images of every class, but {params.data.name} leaves {max(0, left)} "
                             "of a class on average for training; lower it")
        if budget * params.num_draws > left:
            raise ValueError(f"seeds: {params.num_draws} draws of {budget} images of every class, but "
                             f"{params.data.name} leaves {left} of a class on average for training; take fewer")
        if budget * classes < teachers + classes:  # n0 of `repblend.ufc.integration.Budget`
            raise ValueError(f"budgets: {budget} leaves no real image beside the compensators of {teachers} teachers "
                             f"for {classes} classes; raise it, or take fewer teachers.architectures")


def parse_cell(stage: str, text: str) -> Cell | StudentCell | str:
    """Read an architecture (stages `teacher` and `generate`), or what students are of, or a set.

    Raises:
        ValueError: as `StudentCell.parse` and `Cell.parse`.
    """
    if stage in ("teacher", "generate"):
        return text
    return StudentCell.parse(text) if stage == "validate" else Cell.parse(text)


@dataclass(frozen=True)
class UfcContext(StageContext):
    """Everything a stage's function needs."""

    params: UfcParams
    paths: UfcPaths

    pipeline: ClassVar[Pipeline] = Pipeline("repblend.ufc.stages", read_ufc_params, parse_cell, UfcPaths, STAGES,
                                            check)
