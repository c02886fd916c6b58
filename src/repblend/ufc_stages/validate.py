"""Stage `validate`: students that train on one set with one kind of labels, tested on real images.

Students see as many images, whatever the set: a set smaller than UFC's of the same budget is passed through more often.
Their best epoch is chosen on held-out images; the best on test, as the release reports it, stands beside it.
"""

import math
import statistics
from pathlib import Path

import torch
from torch import Tensor, nn

from repblend.progress import progress
from repblend.stages.provenance import provenance
from repblend.stages.resume import work_fingerprint
from repblend.store import JSON, read_tensors, write_json, write_tensors
from repblend.ufc.integration import ImageSet, read_image_set
from repblend.ufc.params import Validation
from repblend.ufc.validation import StudentScores, equal_epochs, train_student
from repblend.ufc_stages.context import StudentCell, UfcContext
from repblend.ufc_stages.inputs import budget_of, normalisation_of, read_pinned_data, read_teachers

SECTIONS = ["compute", "data", "teachers", "validation"]
MEASURES = ("best", "last", "best_on_test")
HARD_LOGIT, HARD_CLASSES = 10.0, 10
"""Of an image's own class, where its label is that class, and among how many classes (`_hard_logit`)."""
NUM_PREDICTED, PREDICTED_CLASSES = 1000, 7
"""At most so many test images whose logits are kept; of more, those of the classes that the decision regions show."""


def run(context: UfcContext) -> None:
    """Write `metrics/validate/<cell>.json`, and `predictions/<cell>.safetensors` for the decision regions."""
    paths, cell = context.paths, context.cell
    images, splits = read_image_set(paths.set(cell.set)), read_pinned_data(context)
    signal, recipe = _signal(context, images), _recipe(context)
    epochs, inputs = _epochs(context, images), _inputs(context)
    work, scores = work_fingerprint(context, SECTIONS, inputs), []
    for run_number in progress(range(recipe.num_seeds), f"validate {cell}", "student"):
        scores.append(train_student(cell.student, images, signal, splits, normalisation_of(context), recipe, epochs,
                                    context.params.seed, run_number, _checkpoint(context, run_number), work,
                                    context.params.compute.device))
    _write_predictions(context, scores[0].network, splits.test.images, splits.test.labels)
    write_json(paths.metrics("validate", cell), {
        "cell": cell.to_json(), "unit": "percent", "num_images": len(images.labels), "epochs": epochs,
        **_summary(scores), "cost": _cost(context, images, epochs),
        "provenance": provenance(context, SECTIONS, inputs)})
    for run_number in range(recipe.num_seeds):
        _checkpoint(context, run_number).unlink(missing_ok=True)


def _checkpoint(context: UfcContext, run_number: int) -> Path:
    return context.paths.checkpoint("validate", f"{context.cell}-{run_number}")


def _signal(context: UfcContext, images: ImageSet) -> Tensor | list[nn.Module]:
    """What students learn from: stored logits, or the teachers themselves."""
    cell: StudentCell = context.cell
    if cell.labels == "dynamic":
        return list(read_teachers(context).values())
    if cell.labels == "static":
        return read_tensors(context.paths.labels(cell.set))[0]["logits"]
    return _hard_logit(images.num_classes) * nn.functional.one_hot(images.labels, images.num_classes).float()


def _hard_logit(num_classes: int) -> float:
    """Return a logit that leaves all other classes together next to nothing, in half-and-half mixtures of logits too.

    There each of two classes has exp(logit / 2) against 1 of every other class: so it grows with the classes' number.
    """
    return HARD_LOGIT + 2 * math.log(num_classes / HARD_CLASSES)


def _recipe(context: UfcContext) -> Validation:
    """The parameters' own; without teachers nothing is distilled, so the temperature is 1."""
    recipe = context.params.validation
    return recipe.model_copy(update={"temperature": 1.0}) if context.cell.labels == "hard" else recipe


def _epochs(context: UfcContext, images: ImageSet) -> int:
    """Passes that show as many images as the parameters' passes over UFC's set of the same budget do."""
    epochs = context.params.validation.epochs
    own = epochs.dynamic if context.cell.labels == "dynamic" else epochs.static
    budget = budget_of(context.cell.set.budget, images.num_classes, context.params)
    return equal_epochs(own, len(images.labels), budget.num_slots * budget.num_classes)


def _inputs(context: UfcContext) -> list[Path]:
    paths, cell = context.paths, context.cell
    taught = {"static": [paths.labels(cell.set)], "hard": [],
              "dynamic": [paths.teacher(name) for name in context.params.teachers.architectures]}
    return [paths.metrics("prepare"), paths.metrics("sets", cell.set), *taught[cell.labels]]


def _summary(scores: list[StudentScores]) -> JSON:
    values = {name: [getattr(each, name) for each in scores] for name in MEASURES}
    return {"seeds": [each.to_json() for each in scores],
            "mean": {name: statistics.fmean(found) for name, found in values.items()},
            "std": {name: statistics.stdev(found) for name, found in values.items()}}


def _cost(context: UfcContext, images: ImageSet, epochs: int) -> JSON:
    """What labels cost a student: bytes that are stored beside the images, or passes of images through a teacher."""
    teachers, labels = len(context.params.teachers.architectures), context.cell.labels
    return {"label_bytes": {"static": images.num_classes * 4 * len(images.labels), "hard": 0, "dynamic": 0}[labels],
            "teacher_passes": {"static": teachers * len(images.labels), "hard": 0,
                               "dynamic": teachers * len(images.labels) * epochs}[labels]}


def _chosen(labels: Tensor) -> Tensor:
    """Return the positions of all test images; where they are too many, of the first classes, evenly spaced.

    A thousand of ImageNet's, evenly spaced among all, would be one of every class.
    """
    if len(labels) <= NUM_PREDICTED:
        return torch.arange(len(labels))
    rows = (labels < PREDICTED_CLASSES).nonzero().flatten()
    num = min(NUM_PREDICTED, len(rows))
    return rows[torch.arange(num) * len(rows) // num]


@torch.no_grad()
def _write_predictions(context: UfcContext, student: nn.Module, images: Tensor, labels: Tensor) -> None:
    chosen = _chosen(labels)
    inputs = normalisation_of(context).normalise(images[chosen]).to(context.params.compute.device)
    write_tensors(context.paths.predictions(context.cell), {"logits": student(inputs).cpu(), "labels": labels[chosen]},
                  {"cell": context.cell.to_json()})
