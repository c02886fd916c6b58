"""A workspace's records as the report reads them: checked where a file could be wrong, None where a cell was not run.

Files are those of the stages: `records/<stage>.json`, `records/<stage>/<cell>/record.json`, and pictures and matrices
beside these. The repository besides has the published numbers and the benchmark of efficiency.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from repblend.grid import ENCODER_STUDENTS
from repblend.params import read_params
from repblend.params.grid import Grid
from repblend.records.base import RUN_AGAIN, Record, Traced
from repblend.records.outputs import Course, Distilled, Encoded, Prepared, Selected, Trajectories
from repblend.records.results import Chance, Efficiency, Embedding, Evaluation, Protocol, Protocols, Transferred
from repblend.report.table import Number
from repblend.runtime.context import Paths
from repblend.runtime.locked import unfit_records
from repblend.stages.pipeline import Context

PROTOCOLS = ("held-out", "faithful")
KINDS: dict[str, type[Traced]] = {
    "prepare": Prepared, "encode": Encoded, "experts": Trajectories, "encoder-experts": Trajectories,
    "select": Selected, "distill": Distilled, "evaluate": Evaluation, "transfer": Transferred, "embed": Embedding}
"""Stage -> its kind of record, in the pipeline's order. The bounds lie with those of `evaluate`."""
CHANCE, FULL_DATA = "chance", "full-data"
"""What `bounds` measures: a random ranking, and students on all real pairs."""
EXPERTS_THEMSELVES = f"{FULL_DATA}+experts"
"""What the experts of both heads reach: the paper's full-data row, without momentum, at the end of training."""
DATASETS = {"flickr30k": ("flickr30k",), "coco": ("coco", "coco_karpathy"), "cc3m": ("cc3m",)}
"""A data set of the paper -> what `data.name` may be for it: its annotation files begin with that."""
EFFICIENCY = "benchmarks/efficiency.json"
"""What the benchmark of efficiency wrote; it is committed, for times are not the pipeline's to reproduce."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

StoredRecord = TypeVar("StoredRecord", bound=Record)


@dataclass(frozen=True)
class GridRecords:
    """The records of a workspace, and what its grid asks for."""

    root: Path
    grid: Grid
    unfit: Mapping[Path, str] = field(default_factory=dict)
    """Records that are here and not shown, each with the reason."""
    _read_before: dict[Path, Record] = field(default_factory=dict, init=False, compare=False, repr=False)

    @classmethod
    def of(cls, root: Path) -> "GridRecords":
        """Find the records of a workspace; raises `ValueError` as `read_params` and `unfit_records` do."""
        return cls(root, read_params(root / "params.yaml").grid, unfit_records(root, Context.pipeline))

    @property
    def repository(self) -> Path:
        """The clone that the workspace lies in."""
        return Paths(self.root).repository

    # What the grid asks for.

    @property
    def methods(self) -> tuple[str, ...]:
        """The grid's methods in the order of tables and figures: what is compared last stands last."""
        return (*self.grid.coresets, *self.learned)

    @property
    def learned(self) -> tuple[str, ...]:
        """The methods that distill, those that match the whole image encoder first."""
        return (*self.grid.encoder_distilled, *reversed(self.grid.distilled))

    @property
    def trained(self) -> tuple[str, ...]:
        """Every row of the results: the methods, and, before those that match the image encoder, the coresets that
        students of their kind train on.
        """
        beside = tuple(f"{coreset}{ENCODER_STUDENTS}" for coreset in self.grid.encoder_coresets)
        return (*self.grid.coresets, *beside, *self.learned)

    @property
    def full_data(self) -> tuple[str, ...]:
        """The full training set, by what students train on it: heads, and the encoder if the grid has such methods."""
        return (FULL_DATA, f"{FULL_DATA}{ENCODER_STUDENTS}") if self.grid.encoder_distilled else (FULL_DATA,)

    def trains_encoder(self, method: str) -> bool:
        """Whether a method's students train the whole image encoder."""
        return method in self.grid.encoder_distilled or method.endswith(ENCODER_STUDENTS)

    def sets(self, method: str, budget: int) -> tuple[str, ...]:
        """The cells of a method at a budget whose sets differ in their draws alone: the plain cell first."""
        grid, own = self.grid, method in self.trained
        budgets = grid.regime_seed_budgets if method in grid.regimes else grid.seed_budgets if own else []
        further = grid.seeded([method]) if budget in budgets else []
        return tuple(f"{each}-{budget}" for each in (method, *further))

    # What was measured. Every method returns None for what was not run, or is unfit.

    def evaluation(self, name: str) -> Evaluation | None:
        """Return what the students of a cell reach.

        Raises:
            ValueError: the file is no JSON, lacks a key, holds something that is no finite number, belongs to another
                cell, or contradicts itself; the message names the file and the key.
        """
        return self._of_cell(Evaluation, "evaluate", name)

    def recall(self, name: str, protocol: str, recall: str = "mean_recall") -> Number | None:
        """Return a recall of a cell, in percent, with its deviation over students; raises as `evaluation`.

        No protocol chose anything for the experts themselves: by all they have the same. `@<pair>` behind their name
        asks for those of a further pair of encoders.
        """
        experts_of, _, pair = name.rpartition("@")
        if EXPERTS_THEMSELVES in (name, experts_of):
            experts = self.experts(pair if experts_of else None)
            return stored_number(experts.test, recall, "test") if experts and experts.test else None
        found = self.evaluation(name)
        return stored_number(by_name(found.protocols, protocol), recall, f"protocols.{protocol}") if found else None

    def experts(self, pair: str | None = None) -> Trajectories | None:
        """Return what the experts of both heads reach, on the pipeline's encoders or on a further pair; raises as
        `evaluation`.
        """
        return self._read(Trajectories, Paths(self.root).record("experts", pair))

    def encoder_experts(self) -> Trajectories | None:
        """Return what the experts that train the whole image encoder reach; raises as `evaluation`."""
        return self._read(Trajectories, Paths(self.root).record("encoder-experts"))

    def chance(self) -> Chance | None:
        """Return the recalls of a random ranking; raises as `evaluation`."""
        return self._read(Chance, Paths(self.root).record("evaluate", CHANCE))

    def distillation(self, name: str) -> Distilled | None:
        """Return how a set was distilled, or where it was imported from; raises as `evaluation`."""
        return self._of_cell(Distilled, "distill", name)

    def course(self, name: str) -> Course | None:
        """Return the course of a distillation; None also of an imported set. Raises as `evaluation`."""
        found = self.distillation(name)
        return found.course if found else None

    def last_measure(self, name: str, measure: str) -> Number | None:
        """Return a measure (a field of `Checkpoints`) after the last iteration of a distillation; raises as
        `evaluation`.
        """
        course = self.course(name)
        if not course:
            return None
        values = getattr(course.checkpoints, measure)
        return Number(values[-1], None, f"course.checkpoints.{measure}.{len(values) - 1}", digits=3)

    def picture(self, name: str, file: str) -> Path:
        """Return the path of a picture beside the record of a set; raises `ValueError` if it is no PNG image."""
        path = Paths(self.root).record("distill", name).with_name(file)
        if not path.is_file() or not path.read_bytes().startswith(PNG_SIGNATURE):
            raise ValueError(f"{path}: expected a PNG image. {RUN_AGAIN}")
        return path

    def similarity(self, name: str) -> np.ndarray | None:
        """Return the (N, N) learned similarity of a set, images by texts; raises as `evaluation`."""
        found, path = self.distillation(name), Paths(self.root).record("distill", name).with_name("similarity.npy")
        if not found:
            return None
        try:
            matrix = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path}: expected a NumPy array ({error}). {RUN_AGAIN}") from error
        if matrix.shape != (found.num_pairs, found.num_pairs) or not np.isfinite(matrix).all():
            raise ValueError(f"{path}: expected finite numbers of shape {found.num_pairs} x {found.num_pairs}, found "
                             f"shape {' x '.join(map(str, matrix.shape))}. {RUN_AGAIN}")
        return matrix

    def transfer(self, name: str) -> Transferred | None:
        """Return what the set of a cell gives on other encoders and tasks; raises as `evaluation`."""
        return self._of_cell(Transferred, "transfer", name)

    def embedding(self, name: str) -> Embedding | None:
        """Return the measures of collapse and the embeddings of a set; raises as `evaluation`."""
        return self._of_cell(Embedding, "embed", name)

    def dataset(self) -> str | None:
        """Return the name of the data set that was prepared; raises as `evaluation`."""
        found = self._read(Prepared, Paths(self.root).record("prepare"))
        return found.name if found else None

    def encoders(self, pair: str | None = None) -> tuple[str, str] | None:
        """Return the image and text encoder of the pipeline, or of a further pair: as `encoded` has them, as the grid
        does where nothing was encoded; None if it was not, and the grid does not say. Raises as `evaluation`.
        """
        if pair is not None:
            declared = self.grid.pairs[pair]
            return declared.image_encoder, declared.text_encoder
        found = self.encoded()
        return (found.image_encoder, found.text_encoder) if found else None

    def is_of(self, dataset: str) -> bool:
        """Whether these are records of a published data set, named as in `DATASETS`; raises as `evaluation`."""
        return self.dataset() in DATASETS[dataset]

    def encoded(self) -> Encoded | None:
        """Return with which encoders features were made; raises as `evaluation`."""
        return self._read(Encoded, Paths(self.root).record("encode"))

    def efficiency(self) -> Efficiency | None:
        """Return the benchmark of efficiency; raises as `evaluation`."""
        return self._read(Efficiency, self.repository / EFFICIENCY, f"Restore it with `git restore {EFFICIENCY}`")

    # Where it stands.

    def file(self, stage: str, name: str) -> str:
        """The path of a cell's record in the workspace, as tables name it."""
        return Paths(self.root).record(stage, name).relative_to(self.root).as_posix()

    def result_file(self, name: str) -> str:
        """The path of the record that a row of the results is from."""
        if name.partition("@")[0] == EXPERTS_THEMSELVES:
            return Paths(self.root).record("experts", name.partition("@")[2] or None).relative_to(self.root).as_posix()
        return self.file("evaluate", name)

    def sources(self) -> dict[str, Traced]:
        """Return every record by its path in the workspace, in the order of the pipeline; raises as `evaluation`."""
        found: dict[str, Traced] = {}
        for stage, kind in KINDS.items():
            alone = Paths(self.root).record(stage)
            for path in (alone, *sorted((alone.parent / stage).glob("*/record.json"))):
                record = self._read(Chance if path.parent.name == CHANCE else kind, path)
                if record:
                    found[path.relative_to(self.root).as_posix()] = cast(Traced, record)
        return found

    def _of_cell(self, kind: type[StoredRecord], stage: str, name: str) -> StoredRecord | None:
        path = Paths(self.root).record(stage, name)
        found: Any = self._read(kind, path)
        if found and not name.startswith(FULL_DATA) and f"{found.cell.method}-{found.cell.budget}" != name:
            raise ValueError(f"{path}: cell: found {found.cell.method}-{found.cell.budget}, expected {name} as in the "
                             f"folder's name. {RUN_AGAIN}")
        return found

    def _read(self, kind: type[StoredRecord], path: Path, mend: str = RUN_AGAIN) -> StoredRecord | None:
        if path not in self._read_before:
            if path in self.unfit or not path.is_file():
                return None
            self._read_before[path] = kind.read(path, mend)
        return cast(StoredRecord, self._read_before[path])


def by_name(protocols: Protocols, name: str) -> Protocol:
    """Return one of the protocols by its name in files and parameters: `held-out`, `faithful` or `last`."""
    return getattr(protocols, name.replace("-", "_"))


def stored_number(statistics: Any, name: str, key: str) -> Number:
    """Return a number with its deviation.

    Args:
        statistics: has the numbers as attributes of `mean`, and their deviations, if any, as those of `std`.
        name: of the number in both.
        key: where the statistics stand in the record.
    """
    return Number(getattr(statistics.mean, name), getattr(statistics.std, name, None), f"{key}.mean.{name}")
