"""Stored metrics as the report reads them: checked where a file could be wrong, None where a cell was not run."""

from dataclasses import dataclass
from pathlib import Path

from repblend.params import Grid, read_params
from repblend.report.schema import (
    RECALLS,
    RUN_AGAIN,
    Chance,
    Distillation,
    Evaluation,
    ImportedSet,
    Record,
    Specimens,
    Traced,
    check,
)
from repblend.report.schema_wider import Efficiency, Embedding, Encoded, Prepared, Transfer
from repblend.stages.context import ENCODER_STUDENTS, repository_of
from repblend.store import JSON, read_json

__all__ = ["PROTOCOLS", "RECALLS", "Metrics"]
PROTOCOLS = ("held-out", "faithful")
STAGES = ("prepare", "encode", "experts", "encoder-experts", "select", "distill", "specimens", "evaluate", "transfer",
          "embed")
"""What has metrics, in the pipeline's order. Run records are not among them: they change from run to run."""
DATASETS = {"flickr30k": ("flickr30k",), "coco": ("coco", "coco_karpathy"), "cc3m": ("cc3m",)}
"""A data set of the paper -> what `data.name` may be for it: its annotation files begin with that."""
EFFICIENCY = "benchmarks/efficiency.json"
"""What the benchmark of efficiency wrote; it is committed, for times are not the pipeline's to reproduce."""


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
    def repository(self) -> Path:
        """The clone that the workspace lies in: it has the published numbers and the benchmarks."""
        return repository_of(self.root)

    @property
    def methods(self) -> tuple[str, ...]:
        """The grid's methods in the order of tables and figures: what is compared last stands last."""
        return (*self.grid.coresets, *self.learned)

    @property
    def trained(self) -> tuple[str, ...]:
        """Every row of the results: the methods, and, before those that match the image encoder, the coresets that
        students of their kind train on.
        """
        beside = tuple(f"{coreset}{ENCODER_STUDENTS}" for coreset in self.grid.encoder_coresets)
        return (*self.grid.coresets, *beside, *self.learned)

    def trains_encoder(self, method: str) -> bool:
        """Whether a method's students train the whole image encoder."""
        return method in self.grid.encoder_distilled or method.endswith(ENCODER_STUDENTS)

    @property
    def learned(self) -> tuple[str, ...]:
        """The methods that distill, those that match the whole image encoder first."""
        return (*self.grid.encoder_distilled, *reversed(self.grid.distilled))

    @property
    def variants(self) -> dict[str, tuple[str, ...]]:
        """Family -> its variants, each `<method>+<variant>`; all are distilled at `variants_budget`."""
        return {family: tuple(names) for family, names in self.grid.variants.items()}

    @property
    def variants_budget(self) -> int:
        """Pairs of every variant."""
        return self.grid.variants_budget

    def dataset(self) -> str | None:
        """Return the name of the data set that was prepared, or None if none was; raises as `evaluation`."""
        path = self.root / "metrics" / "prepare.json"
        return _checked(path, Prepared)["name"] if path.is_file() else None

    def is_of(self, dataset: str) -> bool:
        """Whether these are metrics of a published data set, named as in `DATASETS`; raises as `evaluation`."""
        return self.dataset() in DATASETS[dataset]

    def encoders(self) -> JSON | None:
        """Return the names of the encoders whose features were used, or None if none were; raises as `evaluation`."""
        path = self.root / "metrics" / "encode.json"
        return _checked(path, Encoded)["provenance"]["parameters"]["encode"] if path.is_file() else None

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
        """Return `metrics/distill/<name>.json`, or None if it was not run, or not here: an imported set has no course;
        raises as `evaluation`.
        """
        path = self.path("distill", name)
        if path.is_file() and "imported" in read_json(path):
            self._read("distill", name, ImportedSet)
            return None
        return self._read("distill", name, Distillation)

    def specimens(self, name: str) -> JSON | None:
        """Return `metrics/specimens/<name>.json`, or None if it was not run; raises as `evaluation`."""
        return self._read("specimens", name, Specimens)

    def transfer(self, name: str) -> JSON | None:
        """Return `metrics/transfer/<name>.json`, or None if it was not run; raises as `evaluation`."""
        return self._read("transfer", name, Transfer)

    def embedding(self, name: str) -> JSON | None:
        """Return `metrics/embed/<name>.json`, or None if it was not run; raises as `evaluation`."""
        return self._read("embed", name, Embedding)

    def efficiency(self) -> JSON | None:
        """Return `benchmarks/efficiency.json`, or None if there is none; raises as `evaluation`."""
        path = self.repository / EFFICIENCY
        return _checked(path, Efficiency, f"Restore it with `git restore {EFFICIENCY}`") if path.is_file() else None

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
        of_a_cell = name.removesuffix(ENCODER_STUDENTS) not in ("full-data", "chance")
        if of_a_cell and name != "{method}-{budget}".format(**content["cell"]):
            raise ValueError(f"{path}: cell: found {content['cell']}, expected {name} as in the file's name. "
                             f"{RUN_AGAIN}")
        return content


def _checked(path: Path, kind: type[Record], mend: str = RUN_AGAIN) -> JSON:
    content = read_json(path)
    check(path, content, kind, mend)
    return content
