"""Cells of the grid, and pairs of encoders: what follows from a name; how long students train, and how often experts
are kept.
"""

from dataclasses import dataclass
from re import fullmatch

from repblend.methods import METHODS, find_method
from repblend.params.evaluate import Evaluate, MethodSchedule, StudentSchedule
from repblend.params.grid import base_method, seed_apart
from repblend.records.base import CellName
from repblend.sections import NAME
from repblend.store import JSON

ENCODER_STUDENTS = "+encoder-students"
"""Ends the name of a coreset that students train the whole image encoder on, though it was not made for that."""


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: a method, or a variant `<method>+<variant>` of it, at a budget: `<method>-<budget>`.

    Another set of the same settings, drawn with a seed of its own, is `<method>+seed-<number>-<budget>`.
    """

    method: str
    budget: int

    @classmethod
    def parse(cls, text: str) -> "Cell":
        """Read `<method>-<budget>`, for example `k-center-100`.

        Raises:
            ValueError: the text is no name, or does not end in a positive whole number after a dash.
        """
        method, _, budget = text.rpartition("-")
        if not (fullmatch(NAME, method) and fullmatch("[1-9][0-9]{0,8}", budget)):
            raise ValueError(f"cell {text!r}: expected <method>-<budget>, for example repblend-100")
        return cls(method, int(budget))

    def __str__(self) -> str:
        return f"{self.method}-{self.budget}"

    def to_json(self) -> JSON:
        """Return the cell as the metadata of a set has it."""
        return {"method": self.method, "budget": self.budget}

    @property
    def record(self) -> CellName:
        """The cell as records have it."""
        return CellName(method=self.method, budget=self.budget)

    @property
    def seed(self) -> int:
        """The number of the set among those of the same settings: 0 for the plain cell, whose draws are the run's."""
        return seed_apart(self.method)[1]

    @property
    def without_seed(self) -> "Cell":
        """The plain cell: its settings are those of all further sets."""
        return Cell(seed_apart(self.method)[0], self.budget)

    def with_seed(self, number: int) -> "Cell":
        """The set of a number above 0 with this plain cell's settings."""
        return Cell(f"{self.method}+seed-{number}", self.budget)

    @property
    def base_method(self) -> str:
        """The method without its variant."""
        return base_method(self.method)

    @property
    def base(self) -> "Cell":
        """The cell without its variant, of the same seed."""
        base = Cell(self.base_method, self.budget)
        return base.with_seed(self.seed) if self.seed else base

    @property
    def variant(self) -> str:
        """What stands behind the plus sign, but for a seed; empty for the method as it is."""
        return self.without_seed.method.partition("+")[2]

    @property
    def is_coreset(self) -> bool:
        """Whether the cell's pairs are real ones: no distillation method has its name."""
        return self.base_method not in METHODS

    @property
    def trains_encoder(self) -> bool:
        """Whether students train the whole image encoder: where the method matches that, or the variant says so."""
        if self.is_coreset:
            return self.without_seed.method.endswith(ENCODER_STUDENTS)
        return find_method(self.base_method).matched == "image-encoder"


@dataclass(frozen=True)
class Pair:
    """A further pair of encoders, that features and experts of their own are made with: a key of `grid.pairs`. As a
    variant of a method, `repblend+<pair>-50`, it names a set that is distilled and evaluated with these.
    """

    name: str

    def __str__(self) -> str:
        return self.name


def schedule_of(cell: Cell, evaluate: Evaluate) -> MethodSchedule:
    """Return how students train on a cell's set: as its method says, or else as all of their kind."""
    if cell.base_method in evaluate.methods:
        return evaluate.methods[cell.base_method]
    kind = (evaluate.encoder_students if cell.trains_encoder
            else evaluate.coresets if cell.is_coreset else evaluate.distilled)
    return complete(kind, evaluate)


def complete(schedule: StudentSchedule, evaluate: Evaluate) -> MethodSchedule:
    """Return a schedule with what all students share."""
    return MethodSchedule(**schedule.model_dump(), batch_size=evaluate.batch_size, batches=evaluate.batches,
                          rates="own", decay=True)
