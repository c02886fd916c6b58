"""A unimodal workspace's records as its report reads them: None where a cell was not run. And what cells are called.

Files are those of the stages: `records/<stage>.json`, `records/<stage>/<cell>/record.json`, and pictures and plots
beside these.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from repblend.grid import Cell
from repblend.records.base import RUN_AGAIN, Traced
from repblend.runtime.locked import unfit_records
from repblend.ufc.params import UfcParams, read_ufc_params
from repblend.ufc.records import (
    DecisionRegions,
    DrawnImages,
    Generated,
    Labelled,
    MadeSet,
    PreparedImages,
    TaughtNetwork,
    Validated,
)
from repblend.ufc.stages.pipeline import Labels, StudentCell, UfcContext, UfcPaths

STAGES: dict[type[Traced], str] = {
    PreparedImages: "prepare", DrawnImages: "initial", TaughtNetwork: "teacher", Generated: "generate", MadeSet: "sets",
    Labelled: "label", Validated: "validate", DecisionRegions: "regions"}
"""Kind of record -> name of its file or folder, in the pipeline's order."""
PLANE_COLUMNS = ("x", "y", "label", "predicted")

SomeRecord = TypeVar("SomeRecord", bound=Traced)


@dataclass(frozen=True)
class UfcRecords:
    """The records of a workspace, and what its parameters ask for."""

    paths: UfcPaths
    params: UfcParams
    unfit: Mapping[Path, str]
    """Records that are here and not shown, each with the reason."""

    @classmethod
    def of(cls, root: Path) -> "UfcRecords":
        """Find the records of a workspace; raises `ValueError` as `read_ufc_params` and `unfit_records` do."""
        return cls(UfcPaths(root), read_ufc_params(root / "params.yaml"), unfit_records(root, UfcContext.pipeline))

    @property
    def root(self) -> Path:
        """The workspace."""
        return self.paths.root

    def cells(self, *budgets: int) -> list[StudentCell]:
        """Return the cells of some budgets, by default all, in the order of tables: real images first, UFC last."""
        validation = self.params.validation
        kinds: list[tuple[str, Labels]] = [("random", "hard"), *(("random", labels) for labels in validation.labels),
                                           ("real", "static"), *(("ufc", labels) for labels in validation.labels)]
        return [StudentCell(Cell(name, budget), labels, student) for budget in budgets or self.params.budgets
                for student in validation.students for name, labels in kinds]

    def find(self, kind: type[SomeRecord], cell: object = None) -> SomeRecord | None:
        """Return the record of a kind and, where it has cells, of a cell; None if it was not run, or is unfit; raises
        `ValueError` if the file is no JSON, lacks a key, or contradicts itself; the message names the file and the key.
        """
        path = self.paths.record(STAGES[kind], cell)
        return kind.read(path) if path.is_file() and path not in self.unfit else None

    def plane(self, cell: StudentCell) -> list[tuple[float, float, int, int]]:
        """Return test images in the plane: x, y, class, and the class that the student gives; of regions that were run;
        raises `ValueError` if the file beside the record is missing or has other columns or values.
        """
        path = self.paths.record("regions", cell).with_name("plane.csv")
        try:
            header, *rows = csv.reader(path.read_text("utf-8").splitlines())
            if tuple(header) != PLANE_COLUMNS:
                raise ValueError(f"expected the columns {', '.join(PLANE_COLUMNS)}")
            return [(float(x), float(y), int(label), int(guess)) for x, y, label, guess in rows]
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: expected a row per test image ({error}). {RUN_AGAIN}") from error

    def file(self, kind: type[Traced], cell: object) -> str:
        """The path of a record in the workspace, as tables name it."""
        return self.paths.record(STAGES[kind], cell).relative_to(self.root).as_posix()

    def sources(self) -> dict[str, Traced]:
        """Return every record by its path in the workspace, in the order of the pipeline; raises as `find`."""
        found: dict[str, Traced] = {}
        for kind, stage in STAGES.items():
            alone = self.paths.record(stage)
            for path in (alone, *sorted((alone.parent / stage).glob("*/record.json"))):
                if path.is_file() and path not in self.unfit:
                    found[path.relative_to(self.root).as_posix()] = kind.read(path)
        return found


# What sets, labels and networks are called in tables and figures, and their colours.

SETS = {"ufc": "UFC", "real": "UFC's real images alone", "random": "Random images"}
LABELS = {"static": "static labels", "dynamic": "dynamic labels", "hard": "own classes as labels"}
PAPERS = {("ufc", "static"): " (INFER)", ("ufc", "dynamic"): " (INFER+Dyn)"}
"""What the paper calls them."""
STUDENTS = {"resnet18": "ResNet18", "resnet34": "ResNet34", "resnet50": "ResNet50", "resnet101": "ResNet101",
            "convnet128": "ConvNet128", "mobilenet_v2": "MobileNetV2", "efficientnet_b0": "EfficientNet-B0",
            "shufflenet_g2": "ShuffleNetG2"}
FOR_224_PIXELS = "torchvision-"
"""How names of networks begin that papers call the same as the variants for small images."""
COLOURS = {("random", "hard"): "#b9b9b9", ("random", "static"): "#7f7f7f", ("random", "dynamic"): "#4d4d4d",
           ("real", "static"): "#56b4e9", ("ufc", "static"): "#e69f00", ("ufc", "dynamic"): "#d55e00"}
"""After Okabe and Ito: told apart with any colour vision."""


def title(cell: StudentCell) -> str:
    """What students of a cell learn from."""
    return kind_title(cell.set.method, cell.labels)


def kind_title(name: str, labels: str) -> str:
    """What students of a set with such labels learn from."""
    return f"{SETS[name]}, {LABELS[labels]}{PAPERS.get((name, labels), '')}"


def student_title(name: str) -> str:
    """A network's name as papers write it."""
    return STUDENTS.get(name.removeprefix(FOR_224_PIXELS), name)


def colour(cell: StudentCell) -> str:
    return COLOURS[cell.set.method, cell.labels]
