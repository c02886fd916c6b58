"""Stored metrics as the report reads them: checked where a file could be wrong, None where a cell was not run."""

from dataclasses import dataclass
from pathlib import Path

from repblend.params import Grid, read_params
from repblend.report.schema import RECALLS, Chance, Distillation, Evaluation, Record, Specimens, Traced, check
from repblend.store import JSON, read_json

__all__ = ["PROTOCOLS", "RECALLS", "Metrics"]
PROTOCOLS = ("held-out", "faithful")
STAGES = ("prepare", "encode", "experts", "select", "distill", "specimens", "evaluate")
"""What has metrics, in the pipeline's order. Run records are not among them: they change from run to run."""


@dataclass(frozen=True)
class Metrics:
    """The metrics of a workspace."""

    root: Path
    grid: Grid

    @classmethod
    def of(cls, root: Path) -> "Metrics":
        """Find the metrics of a workspace; raises `ValueError` as `read_params` does."""
        return cls(root, read_params(root / "params.yaml").grid)

    @property
    def methods(self) -> tuple[str, ...]:
        """The grid's methods in the order of tables and figures: what is compared last stands last."""
        return (*self.grid.coresets, *reversed(self.grid.distilled))

    def evaluation(self, name: str) -> JSON | None:
        """Return `metrics/evaluate/<name>.json`, checked, or None if it was not run.

        Raises:
            ValueError: the file is no JSON, lacks a key, holds something that is no finite number, belongs to another
                cell, or contradicts itself; the message names the file and the key.
        """
        return self._read("evaluate", name, Evaluation)

    def chance(self) -> JSON | None:
        """Return `metrics/evaluate/chance.json`, or None if it was not run; raises as `evaluation`."""
        return self._read("evaluate", "chance", Chance)

    def distillation(self, name: str) -> JSON | None:
        """Return `metrics/distill/<name>.json`, or None if it was not run; raises as `evaluation`."""
        return self._read("distill", name, Distillation)

    def specimens(self, name: str) -> JSON | None:
        """Return `metrics/specimens/<name>.json`, or None if it was not run; raises as `evaluation`."""
        return self._read("specimens", name, Specimens)

    def path(self, stage: str, name: str) -> Path:
        return self.root / "metrics" / stage / f"{name}.json"

    def file(self, stage: str, name: str) -> str:
        """The path of a metrics file in the workspace, as tables name it."""
        return self.path(stage, name).relative_to(self.root).as_posix()

    def sources(self) -> dict[str, JSON]:
        """Return the provenance of every metrics file by the file's path in the workspace; raises as `evaluation`."""
        folder = self.root / "metrics"
        paths = [path for stage in STAGES
                 for path in (folder / f"{stage}.json", *sorted((folder / stage).glob("*.json"))) if path.is_file()]
        return {path.relative_to(self.root).as_posix(): _checked(path, Traced)["provenance"] for path in paths}

    def _read(self, stage: str, name: str, kind: type[Record]) -> JSON | None:
        path = self.path(stage, name)
        if not path.is_file():
            return None
        content = _checked(path, kind)
        if name not in ("full-data", "chance") and name != "{method}-{budget}".format(**content["cell"]):
            raise ValueError(f"{path}: cell: found {content['cell']}, expected {name} as in the file's name. "
                             "Delete the file and run `repro run`")
        return content


def _checked(path: Path, kind: type[Record]) -> JSON:
    content = read_json(path)
    check(path, content, kind)
    return content
