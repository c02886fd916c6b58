"""Validation: students train on a set with the teachers' labels and are tested on real images (INFER, as released).

AdamW, cosine, random crops and flips, mixup with lambda ~ Beta(0.8, 0.8) per batch, and the loss
KL(softmax(t/T) || softmax(z/T)), batch mean, T = 30, without a factor T^2; no hard labels. Static labels are the mean
of the teachers' logits on each stored image, computed once and mixed with the images; dynamic labels are the mean of
their logits on each augmented and mixed batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repblend.store import JSON
from repblend.streams import stream
from repblend.ufc.accuracy import accuracy, logits
from repblend.ufc.augmentation import draw_mix, draw_views, see
from repblend.ufc.data import Normalisation, Splits
from repblend.ufc.image_files import ImageFiles
from repblend.ufc.integration import ImageSet
from repblend.ufc.networks import build, drawing_from
from repblend.ufc.params import Validation
from repblend.ufc.training import Training, mean_loss, run_epochs


@dataclass(frozen=True)
class StudentScores:
    """Accuracies of one student, in percent."""

    curves: dict[str, list[float]]
    """`epoch`, `loss`, `val_accuracy`, `test_accuracy`: one value per scoring."""
    network: nn.Module
    """The student after its last epoch, in evaluation mode."""

    @property
    def last(self) -> float:
        """On test, after the last epoch."""
        return self.curves["test_accuracy"][-1]

    @property
    def best(self) -> float:
        """On test, at the epoch that is best on the held-out images (of equal ones, the first)."""
        values = self.curves["val_accuracy"]
        return self.curves["test_accuracy"][values.index(max(values))]

    @property
    def best_on_test(self) -> float:
        """The highest on test, as the release reports it: chosen on the images that it is measured on."""
        return max(self.curves["test_accuracy"])

    def to_json(self) -> JSON:
        """Return curves and the three accuracies."""
        return {"curves": self.curves, "last": self.last, "best": self.best, "best_on_test": self.best_on_test}


def static_labels(teachers: Sequence[nn.Module], images: ImageSet, normalisation: Normalisation, batch_size: int,
                  device: str = "cpu") -> Tensor:
    """Return the mean of the teachers' logits on every stored image, (N, C) float32 on the CPU."""
    every = [logits(teacher, images.pixels, normalisation, batch_size, device) for teacher in teachers]
    return sum(every) / len(every)


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
        padding = self.recipe.augmentation.crop_padding
        views = draw_views(len(rows), padding, self.recipe.augmentation.flip, draws)
        mix = draw_mix(len(rows), self.recipe.mixup_alpha, draws)
        pixels = self.pixels[rows].to(self.device)  # on the CPU before: a batch is little to move
        inputs = mix(self.normalisation.normalise(see(pixels, views, padding)))
        if isinstance(self.signal, Tensor):
            return inputs, mix(self.signal[rows].to(self.device))
        with torch.no_grad():
            return inputs, sum(teacher(inputs) for teacher in self.signal) / len(self.signal)


def train_student(student: str, images: ImageSet, signal: Tensor | Sequence[nn.Module], splits: Splits,
                  normalisation: Normalisation, recipe: Validation, epochs: int, seed: int, run: int, checkpoint: Path,
                  work: str, device: str = "cpu") -> StudentScores:
    """Train one student on a set and score it.

    Args:
        student: a name in `repblend.ufc.networks`.
        signal: static labels, one row of logits per image as `static_labels` gives them, (N, C) float32; or the
            teachers, for dynamic labels.
        epochs: passes over the set (`recipe.epochs` of the kind, or `equal_epochs` of it for a smaller set).
        run: which of `recipe.num_seeds` students; names its random streams.
        checkpoint: a file, resumed from if it is of this work; the caller removes it.

    Raises:
        ValueError: the student is unknown, or its loss is not finite.
    """
    purpose = ("ufc", "student", student, run)  # the same draws for every set and kind of labels
    network = build(student, images.num_classes, images.pixels.shape[-1], stream(seed, *purpose, "initial"))
    network = network.to(device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    training = Training(network, optimiser, checkpoint, work)
    lesson = Lesson(images.pixels, signal, normalisation, recipe, device)

    def run_epoch(epoch: int) -> float:
        draws = stream(seed, *purpose, "epoch", epoch)
        with drawing_from(draws):
            order = torch.randperm(len(images), generator=draws).split(recipe.batch_size)
            return mean_loss([_step(training, lesson, rows, draws) for rows in order if len(rows) > 1])

    def after_epoch(epoch: int, loss: float) -> None:
        if epoch % recipe.score_every == 0 or epoch == epochs - 1:
            scores = {f"{name}_accuracy": accuracy(network, split.images, split.labels, normalisation, device=device)
                      for name, split in (("val", splits.val), ("test", splits.test))}
            training.record(epoch=epoch, loss=loss, **scores)

    run_epochs(training, epochs, recipe.lr, recipe.checkpoint_every, run_epoch, after_epoch,
               f"student {student} {run}")
    return StudentScores(training.curves, network.eval())


def _step(training: Training, lesson: Lesson, rows: Tensor, draws: torch.Generator) -> Tensor:
    inputs, labels = lesson.batch(rows, draws)
    loss = distillation_loss(training.network(inputs), labels, lesson.recipe.temperature)
    training.optimiser.zero_grad()
    loss.backward()
    training.optimiser.step()
    return loss.detach()


def equal_epochs(epochs: int, num_images: int, num_reference: int) -> int:
    """Return how many passes over `num_images` show as many images as `epochs` passes over `num_reference` do."""
    return max(1, round(epochs * num_reference / num_images))
