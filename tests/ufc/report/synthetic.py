"""A unimodal workspace with made-up records of every kind."""

import statistics
from pathlib import Path
from random import Random
from typing import Any

import torch

from repblend.grid import Cell
from repblend.records.base import Provenance
from repblend.runtime.context import csv_of, write_cell
from repblend.ufc.integration import encode
from repblend.ufc.records import (
    MEASURES,
    Accuracies,
    AccuracyCurves,
    CompensatorPicture,
    DecisionRegions,
    Generated,
    GenerationCurves,
    LabelCost,
    MadeSet,
    OneStudent,
    PreparedImages,
    SetPictures,
    SlotPicture,
    SplitAccuracies,
    StoredBytes,
    TaughtNetwork,
    TeacherCurves,
    Validated,
)
from repblend.ufc.report.ufc_records import UfcRecords
from repblend.ufc.stages.pipeline import StudentCell
from tests.stages.imports import ROOT

TEACHERS, STUDENTS, BUDGETS = ["alpha", "beta"], ["alpha", "resnet18"], [3, 10]
PARAMS = """\
seed: 0
compute: {threads: 1}
data: {name: DATASET}
teachers:
  architectures: [alpha, beta]
  epochs: 2
  batch_size: 10
  lr: 0.1
  momentum: 0.9
  weight_decay: 0.0005
  augmentation: {crop_padding: 1, flip: 0.0}
  checkpoint_every: 1
budgets: [3, 10]
seeds: [1]
generation:
  iterations: 5
  lr: 0.1
  lambda_bn: 1.0
  transform: shift
  max_shift: 1
  compensators_at_once: 2
  checkpoint_every: 5
validation:
  labels: [static, dynamic]
  students: [alpha, resnet18]
  epochs: {static: 4, dynamic: 2}
  batch_size: 8
  lr: 0.001
  weight_decay: 0.01
  temperature: 30.0
  mixup_alpha: 0.8
  augmentation: {crop_padding: 1, flip: 0.0}
  score_every: 1
  num_seeds: 3
"""
DIGITS = "digits, image_size: 8, num_val: 100, num_test: 300"
CIFAR10 = "cifar10, image_size: 32, num_val: 100, folder: data/cifar"
IMAGENET = "imagenet, image_size: 224, num_val: 1000, folder: data/imagenet"


def params_text(dataset: str = DIGITS) -> str:
    """The content of `params.yaml`."""
    return PARAMS.replace("DATASET", dataset)


def write_workspace(root: Path, dataset: str = DIGITS, student: str = "resnet18") -> Path:
    """Write parameters and every record into a clone that has the project's notebooks and published numbers."""
    root.mkdir(parents=True)
    text = params_text(dataset).replace("[alpha, resnet18]", f"[alpha, {student}]")
    if dataset == IMAGENET:
        text = text.replace("epochs: 2\n", "epochs: 2\n  weights: torchvision\n")
    (root / "params.yaml").write_text(text)
    for name in ("src", "paper"):
        (root / name).mkdir()
    (root / "src" / "repblend").symlink_to(ROOT / "src" / "repblend")
    for name in ("published", "claims.yaml", "ufc.ipynb"):
        (root / "paper" / name).symlink_to(ROOT / "paper" / name)
    _write_records(UfcRecords.of(root))
    return root


def _write_records(records: UfcRecords) -> None:
    paths, draw = records.paths, Random(0)
    PreparedImages(name=records.params.data.name, num_classes=10, image_size=records.params.data.image_size,
                   num_images={"train": 1397, "val": 100, "test": 300}, sha256={},
                   provenance=_provenance("prepare", None)).write(paths.record("prepare"))
    for name in TEACHERS:
        write_cell(paths.record("teacher", name), TaughtNetwork(
            architecture=name, num_parameters=7, accuracy=SplitAccuracies(val=98.0, test=draw.uniform(95, 99)),
            curves=TeacherCurves(epoch=[0], loss=[1.0]), provenance=_provenance("teacher", name)), {})
        write_cell(paths.record("generate", name), Generated(
            architecture=name, num_compensators=8, provenance=_provenance("generate", name), curves=GenerationCurves(
                iteration=[0, 1, 2], cross_entropy=[3.0, 2.0, 1.0], bn=[3.0, 2.0, 1.0], loss=[3.0, 2.0, 1.0])), {})
    for budget in BUDGETS:
        for name in ("ufc", "real", "random"):
            _write_set(records, Cell(name, budget))
        for cell in (drawn for first in records.cells(budget) for drawn in first.draws(records.params)):
            write_cell(paths.record("validate", cell), _validated(cell, draw), {})
            if cell.labels == "static":
                _write_regions(records, cell, draw)


def _validated(cell: StudentCell, draw: Random) -> Validated:
    curves = AccuracyCurves(epoch=[0, 3], loss=[1.0, 0.5], val_accuracy=[10.0, 90.0], test_accuracy=[10.0, 90.0])
    seeds = [OneStudent(**{name: draw.uniform(60, 99) for name in MEASURES}, curves=curves) for _ in range(3)]
    values = {name: [getattr(seed, name) for seed in seeds] for name in MEASURES}
    return Validated(cell=cell.record, num_images=30, epochs=4, seeds=seeds,
                     mean=Accuracies(**{name: statistics.fmean(found) for name, found in values.items()}),
                     std=Accuracies(**{name: statistics.stdev(found) for name, found in values.items()}),
                     cost=LabelCost(label_bytes=1200, teacher_passes=90), provenance=_provenance("validate", cell))


def _write_set(records: UfcRecords, cell: Cell) -> None:
    pictures, files = None, {}
    if cell.method == "ufc":
        pictures = SetPictures(
            num_classes=2, slots=[SlotPicture(architecture=teacher, image=0) for teacher in (None, *TEACHERS)],
            compensators=[CompensatorPicture(architecture=teacher, image=0) for teacher in TEACHERS],
            largest_change=0.4)
        files = {slot.png: _png(60, 200) for slot in pictures.slots}
        files |= {compensator.png: _png(128) for compensator in pictures.compensators}
    write_cell(records.paths.record("sets", cell), MadeSet(
        cell=cell.record, set_sha256="0" * 64, num_images=30, num_counted=10 * cell.budget - 1,
        num_allowed=10 * cell.budget, pictures=pictures, provenance=_provenance("select", cell),
        stored_bytes=StoredBytes(real_images=111, compensators=222, integrated=333, static_labels=444)), files)


def _write_regions(records: UfcRecords, cell: StudentCell, draw: Random) -> None:
    labels = [number % 7 for number in range(40)]
    predicted = labels[:30] + [0] * 10
    rows = [(draw.gauss(label, 0.5), draw.gauss(-label, 0.5), label, guess)
            for label, guess in zip(labels, predicted, strict=True)]
    write_cell(records.paths.record("regions", cell), DecisionRegions(
        cell=cell.record, perplexity=30.0, disagreement=12.5,
        definitions={"disagreement": "percentage of <other> points"}, provenance=_provenance("regions", None)),
        {"plane.csv": csv_of(("x", "y", "label", "predicted"), rows)})


def _png(*shades: int) -> bytes:
    """Squares of 8 pixels side by side."""
    columns = [torch.full((3, 8, 8), shade, dtype=torch.uint8) for shade in shades]
    return encode(torch.cat(columns, dim=2), "png")


def _provenance(stage: str, name: object) -> Provenance:
    shown = f"{stage} {name}" if name else stage
    parameters: dict[str, Any] = {"data": {"name": "digits"}}
    return Provenance(stage=stage, cell=str(name) if name else None, command=f"python -m repblend.ufc.stages {shown}",
                      seed=0, device="cpu", parameters=parameters, inputs={}, libraries={"torch": "2"},
                      requirements_sha256=None)
