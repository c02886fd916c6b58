"""Evaluation of a set: students are trained on it and reported in two ways (`paper/METHOD.md`, section 8).

- *faithful*: of the scored epochs, the one with the best mean recall on the **test** split, as published.
- *held-out*: the one with the best mean recall on the **validation** split; its test recalls are reported.

Both choose per seed; of equally good epochs the earliest. A third, *last*, chooses nothing; it is there if asked for.
What a seed covers: the students' initial heads and the order of their batches. The set itself, and the experts behind
it, are the same for all seeds.

Shapes: S seeds, E + 1 epochs (0..E), N images, M captions, B rows of a batch, P parameters of one side.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from repblend.data.features import SplitFeatures
from repblend.evaluation.head_students import HeadStudents, train_head_students
from repblend.evaluation.recall import MEAN_RECALL, RECALLS, embedding_recalls
from repblend.evaluation.student import BATCHES, OnEpoch, Recipe, train_students, train_students_on_real_pairs
from repblend.evaluation.towers import HeadPair, Towers
from repblend.experts.training import TrainingPairs, draw_epoch
from repblend.matching.student import Device, Masks, PerModality, Tower, TwoTower, on
from repblend.schedules import scored_epochs
from repblend.store import JSON
from repblend.streams import stream

Recalls = dict[str, float]
PROTOCOLS = {"faithful": "test", "held-out": "val"}
"""Each protocol and the split on which it chooses the epoch."""
DEFAULT_PROTOCOL, LAST = "held-out", "last"
ROWS_AT_ONCE = 8192
"""Images or captions that are embedded at once for scoring."""


@dataclass(frozen=True)
class Evaluator:
    """How sets are evaluated: the same students, schedule and splits for all of them."""

    splits: dict[str, SplitFeatures]
    """`val` and `test`; of students that train the image encoder with pixels (N, 3, H, W) for image features."""
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

    def evaluate_set(self, images: Tensor, texts: Tensor, targets: Tensor, recipe: Recipe,
                     *onlookers: OnEpoch) -> Scores:
        """Train one student per seed on a set and score it at the scored epochs; others may look on after every epoch.

        Args:
            images: (N, D_img) frozen features of the set's images, or their pixels (N, 3, H, W) where students train
                the image encoder.
            texts: (N, D_txt).
            targets: (N, N) soft similarity.

        Raises:
            ValueError: a student diverged, or a score is not finite.
        """
        scores = self.scores()

        def look(epoch: int, trained: Callable[[], PerModality], losses: Tensor) -> None:
            for onlooker in (scores.record, *onlookers):
                onlooker(epoch, trained, losses)

        batches = student_batches(self.seed, self.num_seeds, len(texts), self.epochs, self.batch_size, self.batches)
        images, texts, targets, batches = (value.to(self.device) for value in (images, texts, targets, batches))
        train = partial(train_students, student=self.towers.student)
        if isinstance(self.towers, HeadPair):
            train = partial(train_head_students, heads=(self.towers.img, self.towers.txt))
        train(images, texts, targets, self._initial(), batches, recipe=recipe, on_epoch=look, draw_masks=self._masks)
        return scores

    def evaluate_full_data(self, pairs: TrainingPairs, recipe: Recipe) -> Scores:
        """Train one student per seed on all real pairs with augmented views: the upper bound; raises as above."""
        scores = self.scores()
        draws = ([draw_epoch(len(pairs.texts), pairs.num_views, self.batch_size,
                             stream(self.seed, "evaluate", "full data", number, epoch))
                  for number in range(self.num_seeds)] for epoch in range(self.epochs + 1))
        train_students_on_real_pairs(pairs, self._initial(), draws, self.towers.student, recipe, scores.record,
                                     self._masks)
        return scores

    def _initial(self) -> PerModality:
        return on(self.device, initial_heads(self.seed, self.num_seeds, self.towers))

    def _masks(self, epoch: int) -> Callable[[int], Masks]:
        return student_masks(self.seed, self.num_seeds, self.towers, epoch)


@dataclass
class Scores:
    """Recalls of all students at the scored epochs. Give `record` to the training as its callback."""

    student: TwoTower
    splits: dict[str, SplitFeatures]
    """`val` and `test`; a distillation in progress looks at `val` only."""
    epochs: list[int]
    """The epochs to score, ascending."""
    recalls: dict[str, list[list[Recalls]]] = field(default_factory=lambda: defaultdict(list))
    """Split -> scored epoch -> seed -> recalls."""
    protocol: str = DEFAULT_PROTOCOL
    """The one that counts where one number is asked for."""
    candidates: int | None = None
    """How many of a query's best candidates keep their scores; None for all."""

    def record(self, epoch: int, trained: Callable[[], PerModality], _loss: Tensor) -> None:
        """Score the students if this epoch is one to score."""
        if epoch in self.epochs:
            for name, split in self.splits.items():
                if isinstance(trained, HeadStudents) and trained.remembers(split):
                    found = _recalls(trained.embed(split), split, self.candidates)
                else:
                    found = score(trained(), self.student, split, self.candidates)
                self.recalls[name].append(found)

    def mean_of_best(self, split: str) -> float:
        """Return the students' mean recall on a split in percent, each at its best scored epoch, averaged."""
        return statistics.fmean(max(curve) for curve in self._curves(split))

    def to_json(self) -> JSON:
        """Return what a metrics file says: scored epochs, both protocols, and the curves they chose from."""
        curves = {name: self._curves(name) for name in self.splits}
        protocols = {name: self._reported(split, [first_best(curve) for curve in curves[split]])
                     for name, split in PROTOCOLS.items()}
        if self.protocol == LAST:
            protocols[LAST] = self._reported(None, [len(self.epochs) - 1] * len(curves["test"]))
        return {"unit": "percent", "num_seeds": len(curves["test"]), "scored_epochs": self.epochs,
                "protocols": protocols, "curves": {f"{name}_{MEAN_RECALL}": curves[name] for name in curves}
                } | ({} if self.protocol == DEFAULT_PROTOCOL else {"protocol": self.protocol})

    def _curves(self, split: str) -> list[list[float]]:
        """Seed -> scored epoch -> mean recall."""
        return [[recalls[MEAN_RECALL] for recalls in seed] for seed in zip(*self.recalls[split], strict=True)]

    def _reported(self, selected_on: str | None, chosen: list[int]) -> JSON:
        """The test recalls of every seed at the position of its chosen epoch."""
        seeds = [{"epoch": self.epochs[best]} | self.recalls["test"][best][seed] for seed, best in enumerate(chosen)]
        return {"selected_on": selected_on, "seeds": seeds} | summarise(seeds)


def first_best(curve: Iterable[float]) -> int:
    """Return the position of the highest value; of equal ones the first."""
    values = list(curve)
    return values.index(max(values))


def summarise(seeds: list[JSON]) -> JSON:
    """Return mean and sample standard deviation (n - 1) of every recall over the seeds.

    Raises:
        ValueError: there is one seed only, which has no standard deviation.
    """
    if len(seeds) < 2:
        raise ValueError("evaluate.num_seeds: expected at least 2, because one run has no standard deviation")
    columns = {key: [seed[key] for seed in seeds] for key in (*RECALLS, MEAN_RECALL)}
    return {"mean": {key: statistics.fmean(column) for key, column in columns.items()},
            "std": {key: statistics.stdev(column) for key, column in columns.items()}}


def score(heads: PerModality, student: TwoTower, split: SplitFeatures, candidates: int | None = None) -> list[Recalls]:
    """Return each student's recalls on a split, in percent.

    Args:
        heads: (S, P) each.
        candidates: how many of a query's best candidates keep their scores; None for all.

    Raises:
        ValueError: a score is not finite; the message names the student.
    """

    def embedded(tower: Tower, rows: Tensor, flat: Tensor) -> Tensor:
        return torch.cat([student.stack(tower)(part[None].to(flat.device), flat)[0]
                          for part in rows.split(ROWS_AT_ONCE)])

    def students() -> Iterator[PerModality]:
        for number in range(len(heads.img)):
            own = slice(number, number + 1)
            yield PerModality(embedded(student.embed_images, split.images, heads.img[own]),
                              embedded(student.text, split.texts, heads.txt[own]))

    return _recalls(students(), split, candidates)


@torch.no_grad()
def _recalls(students: Iterable[PerModality], split: SplitFeatures, candidates: int | None) -> list[Recalls]:
    """Return each student's recalls from its embeddings; raises as `score`."""
    found = []
    for number, (images, texts) in enumerate(students):
        try:
            found.append(embedding_recalls(images, texts, split.text_to_image, candidates))
        except ValueError as error:
            raise ValueError(f"student {number}: {error}") from error
    return found


def initial_heads(seed: int, num_seeds: int, towers: Towers) -> PerModality:
    """Draw the students' initial parameters, (S, P) each.

    They do not depend on the method or the budget, so that differences between cells are not differences of draws.
    """
    drawn = [towers.initial(stream(seed, "evaluate", "student", number, "image head"),
                            stream(seed, "evaluate", "student", number, "text head")) for number in range(num_seeds)]
    return PerModality(*(torch.stack(side) for side in zip(*drawn, strict=True)))


def student_batches(seed: int, num_seeds: int, num_pairs: int, epochs: int, batch_size: int,
                    kind: str = "subsets") -> Tensor:
    """Draw every student's batches, (S, E + 1, batches per epoch, B); `kind` is a name in `student.BATCHES`."""
    streams = [stream(seed, "evaluate", "student", number, "batches") for number in range(num_seeds)]
    return torch.stack([BATCHES[kind](num_pairs, epochs, batch_size, generator) for generator in streams])


def student_masks(seed: int, num_seeds: int, towers: Towers, epoch: int) -> Callable[[int], Masks]:
    """Return what draws, batch by batch, which units every student's heads keep in an epoch, (S, B, D)."""
    streams = [stream(seed, "evaluate", "student", number, "dropout", epoch) for number in range(num_seeds)]

    def draw(num_rows: int) -> Masks:
        drawn = [towers.draw_masks(num_rows, generator) for generator in streams]
        return Masks(*(None if side[0] is None else torch.stack(side) for side in zip(*drawn, strict=True)))

    return draw
