"""What a stage gets: the workspace's folder, the parameters, the cell of the matrix it runs, and where files live."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from repblend.records.base import Record
from repblend.runtime.settings import SETTINGS, Pipeline, Settings, settings_file
from repblend.store import atomic_path, repository_of

RECORD = "record.json"
"""A cell's record, in the folder of its pictures and tables."""
SHARED_VARIABLE = "REPBLEND_SHARED_WORKSPACE"
"""Set for a job that runs in a private checkout: the workspace that keeps its unfinished work, locks and logs."""


@dataclass(frozen=True)
class Workspace:
    """Where in a workspace those files live that every pipeline has."""

    root: Path

    @property
    def shared(self) -> Path:
        """Where unfinished work, locks and logs lie: here, or, for a private checkout, in the workspace it is of."""
        return Path(os.environ.get(SHARED_VARIABLE) or self.root)

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

    def settings(self, stage: str, cell: object = None) -> Path:
        """What decides a stage's outputs besides its inputs (stage `settings`)."""
        return self.root / SETTINGS / settings_file(stage, cell)

    def record(self, stage: str, cell: object = None) -> Path:
        """A stage's record: `records/<stage>.json`, or, for a cell, `record.json` in the cell's folder."""
        folder = self.root / "records"
        return folder / f"{stage}.json" if cell is None else folder / stage / str(cell) / RECORD

    def metric(self, protocol: str, name: object) -> Path:
        """The flat metrics of a cell, or of `full-data` or `chance`, by a protocol: `held-out` or `faithful`."""
        return self.root / "metrics" / protocol / f"{name}.json"

    @property
    def runs(self) -> Path:
        """What was particular to every stage's last run, a line each. Not tracked by DVC."""
        return self.root / "runs.jsonl"

    def checkpoint(self, stage: str, name: object) -> Path:
        """Where an unfinished stage keeps what it can resume from; never an output."""
        return self.shared / "checkpoints" / stage / str(name)

    @property
    def runs_lock(self) -> Path:
        return self.root / "checkpoints" / "locks" / "runs.lock"

    def lock(self, context: "StageContext") -> Path:
        return self.shared / "checkpoints" / "locks" / f"{context.name}.lock"

    def begun(self, context: "StageContext") -> Path:
        """A file that is there from a stage's start to its end: if it is there before, the last run was stopped."""
        return self.shared / "checkpoints" / "locks" / f"{context.name}.begun"

    def log(self, context: "StageContext") -> Path:
        return self.shared / "logs" / f"{context.name}.log"


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

    def set(self, cell: object) -> Path:
        """A coreset or distilled set (stages `select` and `distill`)."""
        return self.root / "sets" / f"{cell}.safetensors"

    def full_data(self, name: str) -> str:
        """What records and metrics of the full training set are called."""
        return name


@dataclass(frozen=True)
class PairPaths(Paths):
    """Where a further pair of encoders has what is made with it; the data set and all sets are the workspace's."""

    pair: str
    """Its name in the parameters."""

    @property
    def _own(self) -> Path:
        return self.root / "pairs" / self.pair

    @property
    def features(self) -> Path:
        return self._own / "features"

    @property
    def experts(self) -> Path:
        return self._own / "experts"

    @property
    def encoder_experts(self) -> Path:
        return self._own / "encoder-experts"

    def record(self, stage: str, cell: object = None) -> Path:
        """A record; that of a stage without cells is the pair's own."""
        return super().record(stage, self.pair if cell is None and stage in PAIRED else cell)

    def checkpoint(self, stage: str, name: object) -> Path:
        return super().checkpoint(f"pairs/{self.pair}/{stage}", name)

    def full_data(self, name: str) -> str:
        return f"{name}+{self.pair}"


PAIRED = ("encode", "experts", "encoder-experts")
"""Stages that run once for each pair of encoders."""


@dataclass(frozen=True)
class StageContext:
    """What a stage's `run` gets. A pipeline derives its own, with its table and its types of parameters and paths."""

    pipeline: ClassVar[Pipeline]

    stage: str
    cell: Any
    """None for a stage without cells."""
    params: Any
    paths: Any
    part: int | None = None
    """Which part of the stage's work is done alone; None for all of it."""

    @classmethod
    def of(cls, root: Path, stage: str, cell: str | None) -> Self:
        """Return the context of a stage in the workspace at `root`.

        Raises:
            ValueError: `params.yaml` is not as expected, or the text does not name a cell.
        """
        paths = cls.pipeline.workspace(root)
        parsed = None if cell is None else cls.pipeline.parse_cell(stage, cell)
        return cls(stage, parsed, cls.pipeline.read(paths.params), paths)

    @cached_property
    def settings(self) -> Settings:
        """What the stage was made of when this was first asked for: before its module was imported."""
        return self.pipeline.settings(self.params, self.stage, self.cell, self.paths.repository)

    def settings_now(self) -> Settings:
        """Return the settings by the parameters and sources as they stand in the files now; raises `ValueError` as
        `of`.
        """
        return replace(self, params=self.pipeline.read(self.paths.params)).settings

    @property
    def command(self) -> str:
        """What runs the stage, in the workspace's folder."""
        return " ".join([f"python -m {self.pipeline.package}", self.name.replace("@", " ")])

    @property
    def name(self) -> str:
        """As in logs and locks: `encode`, `distill@repblend-100`, or, for a part, `experts.3`."""
        whole = f"{self.stage}@{self.cell}" if self.cell else self.stage
        return whole if self.part is None else f"{whole}.{self.part}"


def write_cell(path: Path, record: Record, files: Mapping[str, bytes]) -> None:
    """Write a cell's record with what lies beside it, all or nothing.

    Args:
        path: of the record; its folder is replaced.
        files: name -> content of pictures and plots.
    """
    with atomic_path(path.parent) as folder:
        folder.mkdir(parents=True)
        record.write(folder / RECORD)
        for name, content in files.items():
            (folder / name).write_bytes(content)


def csv_of(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a CSV file."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    return buffer.getvalue().encode()
