"""Stage `validate`: students that train on one set with one kind of labels, tested on real images.

Students see as many images, whatever the set: a set smaller than UFC's of the same budget is passed through more often.
Their best epoch is chosen on held-out images; the best on test, as the release reports it, stands beside it.
"""

import statistics
from pathlib import Path

import torch
from torch import Tensor, nn

from repblend.progress import progress
from repblend.runtime.context import csv_of, write_cell
from repblend.runtime.provenance import provenance, work_fingerprint, write_metric
from repblend.streams import seed_of_set
from repblend.tensors import read_tensors, write_tensors
from repblend.ufc import records
from repblend.ufc.data import LabelledImages
from repblend.ufc.integration import BYTES_PER_FLOAT, read_image_set
from repblend.ufc.stages import setup
from repblend.ufc.stages.pipeline import UfcContext
from repblend.ufc.validation import equal_epochs, hard_labels, train_student

PROTOCOLS = {"held-out": "best", "faithful": "best_on_test"}
"""How the flat metrics choose the epoch -> which of `MEASURES` that is."""
NUM_PREDICTED, PREDICTED_CLASSES = 1000, 7
"""At most so many test images whose logits are kept; of more, those of the classes that the decision regions show."""


def validate(context: UfcContext) -> None:
    """Train a cell's students and score them.

    Writes `records/validate/<cell>/`, the flat metrics of both protocols, and `predictions/<cell>.safetensors` for the
    decision regions.
    """
    params, paths, cell, recipe = context.params, context.paths, context.cell, context.params.validation
    images, splits = read_image_set(paths.set(cell.set)), setup.read_pinned_data(context)
    inputs, own_epochs = [paths.record("prepare"), paths.record("sets", cell.set)], recipe.epochs.static
    signal: Tensor | list[nn.Module]
    if cell.labels == "dynamic":
        signal, own_epochs = list(setup.read_teachers(context).values()), recipe.epochs.dynamic
        inputs += map(paths.teacher, params.teachers.architectures)
    elif cell.labels == "static":
        signal = read_tensors(paths.labels(cell.set))[0]["logits"]
        inputs.append(paths.labels(cell.set))
    else:
        signal = hard_labels(images.labels, images.num_classes)
        recipe = recipe.model_copy(update={"temperature": 1.0})  # without teachers nothing is distilled
    budget, work = setup.budget_of(cell.set.budget, params), work_fingerprint(context, inputs)
    epochs = equal_epochs(own_epochs, len(images), budget.num_slots * budget.num_classes)
    checkpoints = [paths.checkpoint("validate", f"{cell}-{number}") for number in range(recipe.num_seeds)]
    seed = seed_of_set(params.seed, cell.set.seed)  # students of each draw of images have draws of their own
    trained = [train_student(cell.student, images, signal, splits, setup.normalisation_of(params), recipe, epochs,
                             seed, number, checkpoint, work, params.compute.device)
               for number, checkpoint in enumerate(progress(checkpoints, f"validate {cell}", "student"))]
    _write_predictions(context, trained[0][1], splits.test)
    _write_record(context, images, epochs, [student for student, _ in trained], inputs)
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)


def _write_record(context: UfcContext, images: LabelledImages, epochs: int, students: list[records.OneStudent],
                  inputs: list[Path]) -> None:
    paths, cell, num_teachers = context.paths, context.cell, len(context.params.teachers.architectures)
    values = {name: [getattr(student, name) for student in students] for name in records.MEASURES}
    passes = {"static": num_teachers * len(images), "hard": 0, "dynamic": num_teachers * len(images) * epochs}
    record = records.Validated(
        cell=cell.record, num_images=len(images), epochs=epochs, seeds=students,
        mean=records.Accuracies(**{name: statistics.fmean(found) for name, found in values.items()}),
        std=records.Accuracies(**{name: statistics.stdev(found) for name, found in values.items()})
        if len(students) > 1 else None,
        cost=records.LabelCost(
            label_bytes=len(images) * images.num_classes * BYTES_PER_FLOAT * (cell.labels == "static"),
            teacher_passes=passes[cell.labels]), provenance=provenance(context, inputs))
    columns = ("val_accuracy", "test_accuracy")
    means = [[round(statistics.fmean(found), records.METRIC_DECIMALS)
              for found in zip(*(getattr(student.curves, name) for student in students), strict=True)]
             for name in columns]
    write_cell(paths.record("validate", cell), record, {"accuracy.csv": csv_of(
        ("epoch", *columns), zip(students[0].curves.epoch, *means, strict=True))})
    for protocol, measure in PROTOCOLS.items():
        found = {"accuracy": record.mean} | ({"accuracy_std": record.std} if record.std else {})
        write_metric(paths.metric(protocol, cell), {name: round(getattr(value, measure), records.METRIC_DECIMALS)
                                                    for name, value in found.items()}, record.provenance)


def _chosen(labels: Tensor) -> Tensor:
    """Return the positions of all test images; where they are too many, of the first classes, evenly spaced.

    A thousand of ImageNet's, evenly spaced among all, would be one of every class.
    """
    if len(labels) <= NUM_PREDICTED:
        return torch.arange(len(labels))
    return setup.of_first_classes(labels, PREDICTED_CLASSES, NUM_PREDICTED)


@torch.no_grad()
def _write_predictions(context: UfcContext, student: nn.Module, test: LabelledImages) -> None:
    chosen = _chosen(test.labels)
    inputs = setup.normalisation_of(context.params).normalise(test.images[chosen]).to(context.params.compute.device)
    write_tensors(context.paths.predictions(context.cell),
                  {"logits": student(inputs).cpu(), "labels": test.labels[chosen]},
                  {"cell": context.cell.record.to_json()})
