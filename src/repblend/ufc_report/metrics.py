"""Stored metrics of the unimodal pipeline as its report reads them: None where a cell was not run."""

from dataclasses import dataclass
from pathlib import Path

from repblend.report.schema import RUN_AGAIN, Record, Traced, check
from repblend.stages.context import Cell
from repblend.store import JSON, read_json
from repblend.ufc.params import UfcParams, read_ufc_params
from repblend.ufc_report.schema import Generated, MadeSet, PreparedImages, Regions, Teacher, Validated
from repblend.ufc_stages.context import StudentCell, UfcPaths

STAGES = ("prepare", "initial", "teacher", "generate", "sets", "label", "validate", "regions")
"""What has metrics, in the pipeline's order."""


@dataclass(frozen=True)
class UfcMetrics:
    """The metrics of a workspace."""

    paths: UfcPaths
    params: UfcParams

    @classmethod
    def of(cls, root: Path) -> "UfcMetrics":
        """Find the metrics of a workspace; raises `ValueError` as `read_ufc_params` does."""
        return cls(UfcPaths(root), read_ufc_params(root / "params.yaml"))

    def cells(self, budget: int) -> list[StudentCell]:
        """Return the cells of a budget in the order of tables: real images first, UFC last."""
        validation = self.params.validation
        return [StudentCell(Cell(name, budget), labels, student) for student in validation.students
                for name, kinds in (("random", ["hard", *validation.labels]), ("real", ["static"]),
                                    ("ufc", validation.labels)) for labels in kinds]

    def prepared(self) -> JSON | None:
        """Return `metrics/prepare.json`, or None if it was not run.

        Raises:
            ValueError: the file is no JSON, lacks a key, or contradicts itself; the message names the file and the key.
        """
        return self._read("prepare", None, PreparedImages)

    def teacher(self, architecture: str) -> JSON | None:
        """Return what a teacher's training measured, or None; raises as `prepared`."""
        return self._read("teacher", architecture, Teacher)

    def generated(self, architecture: str) -> JSON | None:
        """Return what the making of compensators measured, or None; raises as `prepared`."""
        return self._read("generate", architecture, Generated)

    def made_set(self, cell: Cell) -> JSON | None:
        """Return what a set stores, or None; raises as `prepared`."""
        return self._read("sets", cell, MadeSet)

    def validated(self, cell: StudentCell) -> JSON | None:
        """Return what students of a cell reached, or None; raises as `prepared`."""
        return self._read("validate", cell, Validated)

    def regions(self, cell: StudentCell) -> JSON | None:
        """Return where a student of a cell puts test images, or None; raises as `prepared`."""
        return self._read("regions", cell, Regions)

    def file(self, stage: str, name: object) -> str:
        """The path of a metrics file in the workspace, as tables name it."""
        return self.paths.metrics(stage, name).relative_to(self.paths.root).as_posix()

    def sources(self) -> dict[str, JSON]:
        """Return the provenance of every metrics file by the file's path in the workspace; raises as `prepared`."""
        folder = self.paths.root / "metrics"
        paths = [path for stage in STAGES
                 for path in (folder / f"{stage}.json", *sorted((folder / stage).glob("*.json"))) if path.is_file()]
        return {path.relative_to(self.paths.root).as_posix(): _checked(path, Traced)["provenance"] for path in paths}

    def _read(self, stage: str, name: object, kind: type[Record]) -> JSON | None:
        path = self.paths.metrics(stage, name)
        return _checked(path, kind) if path.is_file() else None


def _checked(path: Path, kind: type[Record]) -> JSON:
    content = read_json(path)
    check(path, content, kind, RUN_AGAIN)
    return content
