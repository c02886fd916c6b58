"""What a stage gets: the workspace's folder, the parameters, the cell of the matrix it runs, and where files live."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from repblend.clone import repository_of
from repblend.params import Params, base_method, read_params
from repblend.store import JSON

ENCODER_STUDENTS = "+encoder-students"
"""Ends the name of a set that students train the whole image encoder on, though it was not made for that."""


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: a method, or a variant `<method>+<variant>` of it, at a budget: `<method>-<budget>`."""

    method: str
    budget: int

    @property
    def base_method(self) -> str:
        """The method without its variant."""
        return base_method(self.method)

    @property
    def base(self) -> "Cell":
        """The cell without its variant."""
        return Cell(self.base_method, self.budget)

    @classmethod
    def parse(cls, text: str) -> "Cell":
        """Read `<method>-<budget>`, for example `k-center-100`.

        Raises:
            ValueError: the text does not end in a positive whole number after a dash.
        """
        method, _, budget = text.rpartition("-")
        if not method or not budget.isdecimal() or int(budget) == 0:
            raise ValueError(f"cell {text!r}: expected <method>-<budget>, for example repblend-100")
        return cls(method, int(budget))

    def __str__(self) -> str:
        return f"{self.method}-{self.budget}"

    def to_json(self) -> JSON:
        return {"method": self.method, "budget": self.budget}


@dataclass(frozen=True)
class Workspace:
    """Where in a workspace those files live that every pipeline has."""

    root: Path

    @property
    def repository(self) -> Path:
        """The clone that the workspace lies in, with sources, locked packages and history."""
        return repository_of(self.root)

    def shown(self, path: Path) -> str:
        """A file as records name it: from the workspace, or, where it lies outside, from the clone, or as it is."""
        folder = next((folder for folder in (self.root, self.repository) if path.is_relative_to(folder)), None)
        return str(path.relative_to(folder) if folder else path)

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    def metrics(self, stage: str, name: object = None) -> Path:
        """A stage's metrics file: `metrics/<stage>.json`, or `metrics/<stage>/<name>.json` for a cell."""
        folder = self.root / "metrics"
        return folder / f"{stage}.json" if name is None else folder / stage / f"{name}.json"

    def checkpoint(self, stage: str, name: object) -> Path:
        """Where an unfinished stage keeps what it can resume from; never an output."""
        return self.root / "checkpoints" / stage / str(name)

    def run_record(self, context: "StageContext") -> Path:
        """What was particular to the last run of a stage: commit, machine, time, memory. Not tracked by DVC."""
        return self.root / "metrics" / "runs" / f"{context.name}.json"

    def lock(self, context: "StageContext") -> Path:
        return self.root / "checkpoints" / "locks" / f"{context.name}.lock"

    def log(self, context: "StageContext") -> Path:
        return self.root / "logs" / f"{context.name}.log"


@dataclass(frozen=True)
class Paths(Workspace):
    """Where everything lives in a workspace. `dvc.yaml` names the same paths (a test compares them)."""

    @property
    def data(self) -> Path:
        """Images, annotation files and manifest (stage `prepare`)."""
        return self.root / "data" / "prepared"

    @property
    def features(self) -> Path:
        """Frozen features of every split (stage `encode`)."""
        return self.root / "features"

    @property
    def experts(self) -> Path:
        """Expert trajectories, one file each (stage `experts`)."""
        return self.root / "experts"

    @property
    def encoder_experts(self) -> Path:
        """Trajectories of experts that train the whole image encoder (stage `encoder-experts`)."""
        return self.root / "encoder-experts"

    def set(self, cell: Cell) -> Path:
        """A coreset or distilled set (stages `select` and `distill`)."""
        return self.root / "sets" / f"{cell}.safetensors"


@dataclass(frozen=True)
class StageContext:
    """Everything a stage's `run` needs. Another pipeline derives its own, with other parameters, cells and paths."""

    stage: str
    cell: Cell | None
    params: Params
    paths: Paths

    package: ClassVar[str] = "repblend.stages"
    """Where the modules of the stages lie; `python -m` runs them."""
    read: ClassVar[Callable[[Path], Any]] = staticmethod(read_params)
    """Reads and checks `params.yaml`."""
    workspace: ClassVar[type[Workspace]] = Paths

    @classmethod
    def of(cls, root: Path, stage: str, cell: str | None) -> Self:
        """Return the context of a stage in the workspace at `root`.

        Raises:
            ValueError: `params.yaml` is not as expected, or the text does not name a cell.
        """
        paths = cls.workspace(root)
        return cls(stage, None if cell is None else cls.parse_cell(stage, cell), cls.read(paths.params), paths)

    @classmethod
    def parse_cell(cls, stage: str, text: str) -> Any:
        """Read the cell that `stage` is asked to run; raises `ValueError` as `Cell.parse`."""
        return Cell.parse(text)

    def reread(self) -> Self:
        """Return the same with the parameters as they stand in the file now; raises `ValueError` as `of`."""
        return replace(self, params=type(self).read(self.paths.params))

    @property
    def command(self) -> str:
        """What runs the stage, in the workspace's folder."""
        return " ".join([f"python -m {self.package}", self.name.replace("@", " ")])

    @property
    def name(self) -> str:
        """As DVC calls it: `encode`, or `distill@repblend-100`."""
        return f"{self.stage}@{self.cell}" if self.cell else self.stage

    def parameters(self, sections: Iterable[str]) -> JSON:
        """Return the named sections of the parameters, of `distill` only this cell's settings.

        What other cells are set to changes nothing here, so it must not show in this cell's files either.
        """
        return {name: (self.params.distill.settings(str(self.cell)) if name == "distill" else
                       getattr(self.params, name)).model_dump() for name in sections}
