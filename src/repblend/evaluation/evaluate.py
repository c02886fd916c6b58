"""Train students on a set and report them by both protocols."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from repblend.evaluation.protocol import (
    DEFAULT_PROTOCOL,
    Scores,
    Split,
    initial_heads,
    scored_epochs,
    student_batches,
    student_masks,
)
from repblend.evaluation.student import OnEpoch, Recipe, train_students, train_students_on_real_pairs
from repblend.evaluation.towers import Towers
from repblend.experts.training import ExpertBatch, TrainingPairs, draw_epoch
from repblend.matching.step import Device, Masks, PerModality, on
from repblend.streams import stream


@dataclass(frozen=True)
class Evaluator:
    """How sets are evaluated: the same students, schedule and splits for all of them."""

    splits: dict[str, Split]
    """`val` and `test`."""
    towers: Towers
    seed: int
    num_seeds: int
    epochs: int
    """E: students train epochs 0..E."""
    intervals: int
    """Students are scored after 0, E // intervals, ... epochs."""
    batch_size: int
    batches: str = "subsets"
    """How students' batches are drawn: a name in `student.BATCHES`."""
    protocol: str = DEFAULT_PROTOCOL
    """The protocol that counts where one number is asked for."""
    candidates: int | None = None
    """How many of a query's best candidates keep their scores; None for all."""
    device: Device = "cpu"
    """Where students are trained; ranks are counted on the CPU."""

    def scores(self) -> Scores:
        """Return what records students at the scored epochs."""
        return Scores(self.towers.student, self.splits, scored_epochs(self.epochs, self.intervals),
                      protocol=self.protocol, candidates=self.candidates)

    def evaluate_set(self, images: Tensor, texts: Tensor, targets: Tensor, recipe: Recipe) -> Scores:
        """Train one student per seed on a set and score it at the scored epochs.

        Args:
            images: (N, D_img) frozen features of the set's images, or their pixels (N, 3, H, W) where students train
                the image encoder.
            texts: (N, D_txt).
            targets: (N, N) soft similarity.

        Raises:
            ValueError: a student diverged, or a score is not finite.
        """
        scores = self.scores()
        self.train_on_set(images, texts, targets, recipe, scores.record)
        return scores

    def train_on_set(self, images: Tensor, texts: Tensor, targets: Tensor, recipe: Recipe,
                     *onlookers: OnEpoch) -> None:
        """Train these students with others looking on, in turn, after every epoch; as `evaluate_set`."""

        def look(epoch: int, trained: PerModality, losses: Tensor) -> None:
            for onlooker in onlookers:
                onlooker(epoch, trained, losses)

        batches = student_batches(self.seed, self.num_seeds, len(texts), self.epochs, self.batch_size, self.batches)
        images, texts, targets, batches = (value.to(self.device) for value in (images, texts, targets, batches))
        train_students(images, texts, targets, self._initial(), batches, self.towers.student, recipe, look, self._masks)

    def evaluate_full_data(self, pairs: TrainingPairs, recipe: Recipe) -> Scores:
        """Train one student per seed on all real pairs with augmented views: the upper bound; raises as above."""
        scores = self.scores()
        draws = (self._epoch(pairs, epoch) for epoch in range(self.epochs + 1))
        train_students_on_real_pairs(pairs, self._initial(), draws, self.towers.student, recipe, scores.record,
                                     self._masks)
        return scores

    def _initial(self) -> PerModality:
        return on(self.device, initial_heads(self.seed, self.num_seeds, self.towers))

    def _masks(self, epoch: int) -> Callable[[int], Masks]:
        return student_masks(self.seed, self.num_seeds, self.towers, epoch)

    def _epoch(self, pairs: TrainingPairs, epoch: int) -> list[list[ExpertBatch]]:
        return [draw_epoch(len(pairs.texts), pairs.num_views, self.batch_size,
                           stream(self.seed, "evaluate", "full data", number, epoch))
                for number in range(self.num_seeds)]
