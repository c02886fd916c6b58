"""A quick look at a set while it is being distilled: students trained on it, scored on the validation split only."""

from dataclasses import dataclass

from torch import Tensor

from repblend.evaluation.protocol import HeadPair, Scores, Split, initial_heads, scored_epochs, student_batches
from repblend.evaluation.recall import MEAN_RECALL
from repblend.evaluation.student import Recipe, train_students


@dataclass(frozen=True)
class Validation:
    """How sets are looked at."""

    split: Split
    """The validation split."""
    heads: HeadPair
    seed: int
    num_seeds: int
    """Students per look."""
    epochs: int
    """E: students train epochs 0..E."""
    intervals: int
    """Students are scored after 0, E // intervals, ... epochs."""
    batch_size: int

    def mean_recall(self, images: Tensor, texts: Tensor, targets: Tensor, recipe: Recipe) -> float:
        """Return the students' mean recall in percent, each at its best scored epoch, averaged.

        Args:
            images: (N, D_img) frozen features of the set's images.
            texts: (N, D_txt).
            targets: (N, N) soft similarity.

        Raises:
            ValueError: a student diverged.
        """
        batches = student_batches(self.seed, self.num_seeds, len(texts), self.epochs, self.batch_size)
        scores = Scores(self.heads.student, {"val": self.split}, scored_epochs(self.epochs, self.intervals))
        train_students(images, texts, targets, initial_heads(self.seed, self.num_seeds, self.heads), batches,
                       self.heads.student, recipe, scores.record)
        best = [max(recalls[MEAN_RECALL] for recalls in student)
                for student in zip(*scores.recalls["val"], strict=True)]
        return sum(best) / len(best)
