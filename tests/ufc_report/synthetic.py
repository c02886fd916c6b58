"""A unimodal workspace with made-up metrics of every kind."""

import io
import statistics
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from repblend.analysis.specimens import as_base64
from repblend.stages.context import Cell
from repblend.store import JSON, write_json
from repblend.ufc_report.metrics import UfcMetrics
from repblend.ufc_report.schema import MEASURES
from repblend.ufc_stages.context import StudentCell
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
    """Write parameters and every metrics file into a clone that has the project's notebooks and published numbers."""
    root.mkdir(parents=True)
    text = params_text(dataset).replace("[alpha, resnet18]", f"[alpha, {student}]")
    if dataset == IMAGENET:
        text = text.replace("epochs: 2\n", "epochs: 2\n  weights: torchvision\n")
    (root / "params.yaml").write_text(text)
    for name in ("src", "paper"):
        (root / name).mkdir()
    (root / "src" / "repblend").symlink_to(ROOT / "src" / "repblend")
    (root / "paper" / "published").symlink_to(ROOT / "paper" / "published")
    (root / "paper" / "ufc.ipynb").symlink_to(ROOT / "paper" / "ufc.ipynb")
    metrics = UfcMetrics.of(root)
    for (stage, name), content in contents(metrics).items():
        write_json(metrics.paths.metrics(stage, name), content | {"provenance": _provenance(stage, name)})
    return root


def contents(metrics: UfcMetrics) -> dict[tuple[str, object], JSON]:
    """What every metrics file holds, without provenance."""
    draw = Random(0)
    files: dict[tuple[str, object], JSON] = {("prepare", None): {
        "name": metrics.params.data.name, "num_classes": 10, "num_images": {"train": 1397, "val": 100, "test": 300}}}
    for name in TEACHERS:
        files["teacher", name] = {"architecture": name, "num_parameters": 7,
                                  "accuracy": {"val": 98.0, "test": draw.uniform(95, 99)}}
        files["generate", name] = {"architecture": name, "num_compensators": 8, "curves": {
            "iteration": [0, 1, 2], **{key: [3.0, 2.0, 1.0] for key in ("cross_entropy", "bn", "loss")}}}
    for budget in BUDGETS:
        files |= {("sets", Cell(name, budget)): _made_set(name, budget) for name in ("ufc", "real", "random")}
        files |= {("validate", cell): _validated(cell, draw) for cell in metrics.cells(budget)}
        files |= {("regions", cell): _regions(cell, draw) for cell in metrics.cells(budget) if cell.labels == "static"}
    return files


def _validated(cell: StudentCell, draw: Random) -> JSON:
    seeds = [{name: draw.uniform(60, 99) for name in MEASURES} | {"curves": {
        "epoch": [0, 3], "loss": [1.0, 0.5], "val_accuracy": [10.0, 90.0], "test_accuracy": [10.0, 90.0]}}
        for _ in range(3)]
    values = {name: [seed[name] for seed in seeds] for name in MEASURES}
    return {"cell": cell.to_json(), "unit": "percent", "num_images": 30, "epochs": 4, "seeds": seeds,
            "mean": {name: statistics.fmean(found) for name, found in values.items()},
            "std": {name: statistics.stdev(found) for name, found in values.items()},
            "cost": {"label_bytes": 1200, "teacher_passes": 90}}


def _made_set(name: str, budget: int) -> JSON:
    content: dict[str, Any] = {
        "cell": {"method": name, "budget": budget}, "num_images": 30, "num_counted": 10 * budget - 1,
        "num_allowed": 10 * budget,
        "stored_bytes": {"real_images": 111, "compensators": 222, "integrated": 333, "static_labels": 444}}
    if name == "ufc":
        content["specimens"] = {
            "slots": [{"architecture": teacher, "image": 0, "png": [_png(60), _png(200)]}
                      for teacher in (None, *TEACHERS)],
            "compensators": [{"architecture": teacher, "image": 0, "png": _png(128)} for teacher in TEACHERS],
            "largest_change": 0.4}
    return content


def _regions(cell: StudentCell, draw: Random) -> JSON:
    labels = [number % 7 for number in range(40)]
    return {"cell": cell.to_json(), "labels": labels, "predicted": labels[:30] + [0] * 10, "disagreement": 12.5,
            "plane": [[draw.gauss(label, 0.5), draw.gauss(-label, 0.5)] for label in labels],
            "definitions": {"disagreement": "percentage of <other> points"}}


def _png(shade: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(buffer, format="PNG")
    return as_base64(buffer.getvalue())


def _provenance(stage: str, name: object) -> JSON:
    shown = f"{stage} {name}" if name else stage
    return {"stage": stage, "command": f"python -m repblend.ufc_stages {shown}", "run": f"metrics/runs/{shown}.json",
            "seed": 0, "parameters": {"data": {"name": "digits"}}, "inputs": {}, "libraries": {"torch": "2"}}
