"""The two ways to report students, side by side (PAPER.md section 6).

- *faithful*: of the scored epochs, the one with the best mean recall on the **test** split, as published.
- *held-out*: the one with the best mean recall on the **validation** split; its test recalls are reported.

Both choose per seed; of equally good epochs the earliest. A third, *last*, chooses nothing; it is there if asked for.
What a seed covers: the students' initial heads and the order of their batches. The set itself, and the experts behind
it, are the same for all seeds.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from repblend.evaluation.block_recall import embedding_recalls
from repblend.evaluation.recall import MEAN_RECALL, RECALLS
from repblend.evaluation.student import BATCHES
from repblend.evaluation.towers import HeadPair, Towers
from repblend.matching.step import Masks, PerModality, Student
from repblend.store import JSON
from repblend.streams import stream

__all__ = ["HeadPair", "Scores", "Split", "initial_heads", "score", "scored_epochs", "student_batches"]

Recalls = dict[str, float]
ROWS_AT_ONCE = 8192
"""Images or captions that are embedded at once for scoring."""
PROTOCOLS = {"faithful": "test", "held-out": "val"}
"""Each protocol and the split on which it chooses the epoch."""


DEFAULT_PROTOCOL, LAST = "held-out", "last"


class Split(Protocol):
    """Frozen features of a validation or test split."""

    images: Tensor
    """(N, D_img) frozen features, or (N, 3, H, W) pixels where the image encoder is trained."""
    texts: Tensor
    """(M, D_txt)."""
    text_to_image: Tensor
    """(M,) int64: which image a caption belongs to."""


def scored_epochs(epochs: int, intervals: int) -> list[int]:
    """Return the epochs after which students are scored: 0, E // n, 2 (E // n), ... and E, as published."""
    return sorted({*range(0, epochs + 1, max(1, epochs // intervals)), epochs})


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


def score(heads: PerModality, student: Student, split: Split, candidates: int | None = None) -> list[Recalls]:
    """Return each student's recalls on a split, in percent.

    Args:
        heads: (S, P) each.
        candidates: how many of a query's best candidates keep their scores; None for all.

    Raises:
        ValueError: a score is not finite; the message names the student.
    """
    return [_recalls(number, PerModality(*(head[number:number + 1] for head in heads)), student, split, candidates)
            for number in range(len(heads.img))]


def _recalls(number: int, heads: PerModality, student: Student, split: Split, candidates: int | None) -> Recalls:
    device = heads.img.device
    images, texts = (torch.cat([student.stack(tower)(part[None].to(device), flat)[0]
                                for part in rows.split(ROWS_AT_ONCE)])
                     for tower, rows, flat in ((student.embed_images, split.images, heads.img),
                                               (student.text, split.texts, heads.txt)))
    try:
        return embedding_recalls(images, texts, split.text_to_image, candidates)
    except ValueError as error:
        raise ValueError(f"student {number}: {error}") from error


@dataclass
class Scores:
    """Recalls of all students at the scored epochs. Give `record` to the training as its callback."""

    student: Student
    splits: dict[str, Split]
    """`val` and `test`; a distillation in progress looks at `val` only."""
    epochs: list[int]
    """The epochs to score, ascending."""
    recalls: dict[str, list[list[Recalls]]] = field(default_factory=lambda: defaultdict(list))
    """Split -> scored epoch -> seed -> recalls."""
    protocol: str = DEFAULT_PROTOCOL
    """The one that counts where one number is asked for."""
    candidates: int | None = None
    """How many of a query's best candidates keep their scores; None for all."""

    def record(self, epoch: int, heads: PerModality, _loss: Tensor) -> None:
        """Score the students if this epoch is one to score."""
        if epoch in self.epochs:
            with torch.no_grad():
                for name, split in self.splits.items():
                    self.recalls[name].append(score(heads, self.student, split, self.candidates))

    def mean_of_best(self, split: str) -> float:
        """Return the students' mean recall on a split in percent, each at its best scored epoch, averaged."""
        return statistics.fmean(max(curve) for curve in self._curves(split))

    def to_json(self) -> JSON:
        """Return what a metrics file says: scored epochs, both protocols, and the curves they chose from."""
        curves = {name: self._curves(name) for name in self.splits}
        protocols = {name: self._protocol(split, curves[split]) for name, split in PROTOCOLS.items()}
        if self.protocol == LAST:
            protocols[LAST] = self._reported(None, [len(self.epochs) - 1] * len(curves["test"]))
        return {"unit": "percent", "num_seeds": len(curves["test"]), "scored_epochs": self.epochs,
                "protocols": protocols, "curves": {f"{name}_{MEAN_RECALL}": curves[name] for name in curves}
                } | ({} if self.protocol == DEFAULT_PROTOCOL else {"protocol": self.protocol})

    def _curves(self, split: str) -> list[list[float]]:
        """Seed -> scored epoch -> mean recall."""
        return [[recalls[MEAN_RECALL] for recalls in seed] for seed in zip(*self.recalls[split], strict=True)]

    def _protocol(self, selected_on: str, curves: list[list[float]]) -> JSON:
        return self._reported(selected_on, [first_best(curve) for curve in curves])

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
