"""Validation: students train on a set with the teachers' labels and are tested on real images (INFER, as released).

AdamW, cosine, random crops and flips, mixup with lambda ~ Beta(0.8, 0.8) per batch, and the loss
KL(softmax(t/T) || softmax(z/T)), batch mean, T = 30, without a factor T^2; no hard labels. Static labels are the mean
of the teachers' logits on each stored image, computed once and mixed with the images; dynamic labels are the mean of
their logits on each augmented and mixed batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from repblend.store import JSON
from repblend.ufc.data import Normalisation, Splits
from repblend.ufc.integration import ImageSet
from repblend.ufc.params import Validation


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
    """Return the mean of the teachers' logits on every stored image, (N, C) float32."""
    raise NotImplementedError


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
    raise NotImplementedError


def accuracy(network: nn.Module, images: Tensor, labels: Tensor, normalisation: Normalisation, batch_size: int = 500,
             device: str = "cpu") -> float:
    """Return the share of images (N, 3, H, W) whose highest logit is their class's, in percent; ties go to the first.

    Raises:
        ValueError: a logit is NaN.
    """
    raise NotImplementedError


def equal_epochs(epochs: int, num_images: int, num_reference: int) -> int:
    """Return how many passes over `num_images` show as many images as `epochs` passes over `num_reference` do."""
    return max(1, round(epochs * num_reference / num_images))
