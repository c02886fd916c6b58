"""Validation: students train on a set with the teachers' labels and are tested on real images.

As released (INFER, arXiv 2408.06927; `paper/METHOD.md`, section 12): AdamW, cosine, random crops and flips, mixup with
lambda ~ Beta(0.8, 0.8) per batch, and the loss KL(softmax(t/T) || softmax(z/T)), batch mean, T = 30, without a factor
T^2; no hard labels. Static labels are the mean of the teachers' logits on each stored image, computed once and mixed
with the images; dynamic labels are the mean of their logits on each augmented and mixed batch.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repblend.streams import stream
from repblend.ufc.data import ImageFiles, LabelledImages, Normalisation, Splits
from repblend.ufc.networks import build
from repblend.ufc.params import Validation
from repblend.ufc.records import AccuracyCurves, OneStudent
from repblend.ufc.training import Training, held_out_accuracies, logits, run_epochs
from repblend.ufc.transforms import Mix, augmented, draw_mix


def chosen(curves: dict[str, list[float]]) -> OneStudent:
    """Return a student's accuracies on test, in percent, with its curves.

    They are of the last epoch, of the one that is best on the held-out images (of equal ones, the first), and the
    highest, as the release reports it: chosen on the images that it is measured on.
    """
    val, test = curves["val_accuracy"], curves["test_accuracy"]
    return OneStudent(best=test[val.index(max(val))], last=test[-1], best_on_test=max(test),
                      curves=AccuracyCurves.model_validate(curves))


def static_labels(teachers: Sequence[nn.Module], images: LabelledImages, normalisation: Normalisation, batch_size: int,
                  device: str = "cpu") -> Tensor:
    """Return the mean of the teachers' logits on every stored image, (N, C) float32 on the CPU."""
    return mean_logits([logits(teacher, images.images, normalisation, batch_size, device) for teacher in teachers])


def mean_logits(every: Sequence[Tensor]) -> Tensor:
    """Return the mean over teachers."""
    return reduce(operator.add, every) / len(every)


HARD_LOGIT, HARD_CLASSES = 10.0, 10
"""Of an image's own class, where its label is that class, and among how many classes (`hard_labels`)."""


def hard_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Return own classes (N,) as logits, (N, C) float32: the baseline without teachers.

    The class's logit leaves all other classes together next to nothing, in half-and-half mixtures of logits too. There
    each of two classes has exp(logit / 2) against 1 of every other class: so it grows with the classes' number.
    """
    logit = HARD_LOGIT + 2 * math.log(num_classes / HARD_CLASSES)
    return logit * F.one_hot(labels, num_classes).float()


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return KL(softmax(teacher / T) || softmax(student / T)), mean over the batch, for logits (B, C)."""
    return F.kl_div(F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1),
                    reduction="batchmean", log_target=True)


@dataclass(frozen=True)
class Lesson:
    """What a student learns from: images and who labels them."""

    pixels: Tensor | ImageFiles
    """(N, 3, H, W), as stored."""
    signal: Tensor | Sequence[nn.Module]
    """(N, C) static labels, or the teachers, on the device, that label every batch."""
    normalisation: Normalisation
    recipe: Validation
    device: str = "cpu"

    def batch(self, rows: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return augmented and mixed inputs (B, 3, H, W) and the teachers' logits for them (B, C)."""
        pixels = self.pixels[rows].to(self.device)  # on the CPU before: a batch is little to move
        seen = augmented(pixels, self.recipe.augmentation, draws)
        return self.mixed(seen, rows, draw_mix(len(rows), self.recipe.mixup_alpha, draws))

    def mixed(self, seen: Tensor, rows: Tensor, mix: Mix) -> tuple[Tensor, Tensor]:
        """Return inputs and logits of images (B, 3, H, W) as they are seen, at rows (B,) of the set."""
        inputs = mix(self.normalisation.normalise(seen))
        if isinstance(self.signal, Tensor):
            return inputs, mix(self.signal[rows].to(self.device))
        with torch.no_grad():
            return inputs, mean_logits([teacher(inputs) for teacher in self.signal])


def train_student(student: str, images: LabelledImages, signal: Tensor | Sequence[nn.Module], splits: Splits,
                  normalisation: Normalisation, recipe: Validation, epochs: int, seed: int, run: int, checkpoint: Path,
                  work: str, device: str = "cpu") -> tuple[OneStudent, nn.Module]:
    """Train one student on a set and score it; return its accuracies, and the network in evaluation mode.

    Args:
        student: a name in `repblend.ufc.networks`.
        signal: static labels, one row of logits per image as `static_labels` gives them, (N, C) float32; or the
            teachers, for dynamic labels.
        seed: of all draws; those of several sets that are to be independent differ.
        epochs: passes over the set (`recipe.epochs` of the kind, or `equal_epochs` of it for a smaller set).
        run: which of `recipe.num_seeds` students; names its random streams.
        checkpoint: a file, resumed from if it is of this work; the caller removes it.

    Raises:
        ValueError: the student is unknown, or its loss is not finite.
    """
    purpose = ("ufc", "student", student, run)  # the same draws for every set of one seed and every kind of labels
    network = build(student, images.num_classes, images.images.shape[-1], stream(seed, *purpose, "initial"))
    network = network.to(device).train()
    training = Training(network, optimiser_of(network, recipe), checkpoint, work)
    lesson = Lesson(images.images, signal, normalisation, recipe, device)

    def step(rows: Tensor, draws: torch.Generator) -> Tensor:
        inputs, labels = lesson.batch(rows, draws)
        return training.step(distillation_loss(network(inputs), labels, recipe.temperature))

    def after_epoch(epoch: int, loss: float) -> None:
        if epoch % recipe.score_every == 0 or epoch == epochs - 1:
            scores = held_out_accuracies(network, splits, normalisation, device)
            training.record(epoch=epoch, loss=loss, **{f"{name}_accuracy": score for name, score in scores.items()})

    run_epochs(training, epochs, len(images), recipe, partial(stream, seed, *purpose, "epoch"), step, after_epoch,
               f"student {student} {run}", smallest=1 if recipe.last_image == "train" else 2)
    return chosen(training.curves), network.eval()


def optimiser_of(student: nn.Module, recipe: Validation) -> torch.optim.Optimizer:
    """Return the optimiser of a student's parameters, biases and those of BatchNorm included."""
    return torch.optim.AdamW(student.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)


def equal_epochs(epochs: int, num_images: int, num_reference: int) -> int:
    """Return how many passes over `num_images` show as many images as `epochs` passes over `num_reference` do."""
    return max(1, round(epochs * num_reference / num_images))
