"""Forgetting: pairs that training learns and keeps (PAPER.md section 10, after MDM's supplement).

While heads train, a pair is *correct* at a step that draws it if its image and its caption retrieve each other at rank
one inside the batch, under the heads from before the step. A pair is *forgotten* whenever it was correct the last time
it was drawn and is not now. Pairs forgotten least come first, pairs that were never correct last of all.

This project's definitions: a tie is lost, as in `repblend.evaluation.recall`; an epoch that does not draw a pair (a
last partial batch is dropped) says nothing about it, so its state stays what it was.

Shapes: E epochs, M pairs, B pairs of a batch, I candidates.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from repblend.experts.training import ExpertBatch, TrainingPairs
from repblend.matching.losses import cosine_logits
from repblend.matching.step import PerModality, Student


def forgetting(counts: Tensor, order: Tensor, num_pairs: int) -> list[int]:
    """Choose the pairs forgotten least.

    Args:
        counts: (I,) how often each was forgotten; infinity for one that was never learned.
        order: (I,) a permutation; of pairs forgotten equally often the first in it is taken first.

    Returns:
        `num_pairs` different rows in the order chosen; a larger choice begins with the smaller one.

    Raises:
        ValueError: there are fewer rows than pairs.
    """
    if num_pairs > len(counts):
        raise ValueError(f"forgetting: expected a budget of at most {len(counts)} (one pair per training image), "
                         f"found {num_pairs}")
    return order[counts[order].argsort(stable=True)][:num_pairs].tolist()


def forgetting_counts(correct_EM: Tensor, seen_EM: Tensor) -> Tensor:
    """Return (M,) float64: how often each pair went from correct to incorrect, infinity if it was never correct.

    Args:
        correct_EM: (E, M) bool, whether a pair was correct when it was drawn; ignored where it was not drawn.
        seen_EM: (E, M) bool, whether an epoch drew the pair.
    """
    counts = torch.zeros(correct_EM.shape[1], dtype=torch.float64)
    known = torch.zeros_like(correct_EM[0])  # (M,) whether the pair was correct when it was last drawn
    for correct, seen in zip(correct_EM, seen_EM, strict=True):
        counts += known & seen & ~correct
        known = torch.where(seen, correct, known)
    counts[~(correct_EM & seen_EM).any(0)] = torch.inf
    return counts


def mutual_first(scores_BB: Tensor) -> Tensor:
    """Return (B,) bool: whether row b and column b of the scores each have their strict maximum in (b, b).

    Raises:
        ValueError: a score is NaN or infinite.
    """
    if not torch.isfinite(scores_BB).all():
        raise ValueError("forgetting: found NaN or infinite scores; the heads diverged: lower select.warm_up.lr")
    own = scores_BB.diagonal()
    return ((scores_BB >= own[:, None]).sum(1) == 1) & ((scores_BB >= own).sum(0) == 1)


def record_correctness(pairs: TrainingPairs, epochs: list[list[ExpertBatch]], heads_before: Iterable[PerModality],
                       student: Student) -> tuple[Tensor, Tensor]:
    """Watch a training, and return which pairs each epoch found correct and which it drew, (E, M) bool each.

    Args:
        epochs: every epoch's batches.
        heads_before: the heads (P,) from before each batch's step, in the order of the steps; taken one by one.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    correct = torch.zeros(len(epochs), len(pairs.texts), dtype=torch.bool)
    seen, heads = torch.zeros_like(correct), iter(heads_before)
    for epoch, batches in enumerate(epochs):
        for draw in batches:
            correct[epoch, draw.pairs] = _correct(pairs, draw, heads, student)
            seen[epoch, draw.pairs] = True
    return correct, seen


def _correct(pairs: TrainingPairs, draw: ExpertBatch, heads: Iterator[PerModality], student: Student) -> Tensor:
    (images, texts), before = pairs.batch(draw), next(heads)
    with torch.no_grad():
        scores = cosine_logits(student.image(images, before.img), student.text(texts, before.txt), temperature=1.0)
    return mutual_first(scores)
