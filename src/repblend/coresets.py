"""Coresets: real pairs chosen as baselines of distilled ones (`paper/METHOD.md`, section 10; Tables 1 and 2).

The table `CORESETS` has every method; another one is a function and a line there. A method gets the real pairs,
`RealPairs`, and a budget, and returns caption rows.

- *random*: pairs drawn without replacement; a distillation starts from the same pairs at the same seed.
- *herding*: after t rows with sum s, the row x that minimises | (t + 1) mean - s - x |.
- *k-center*: farthest-first traversal, always the row farthest from its nearest chosen one.
- *forgetting*: the pairs that training learns and keeps.

Herding and k-center look at joint features, the unit image and the unit text embedding of a pair side by side, under
heads that were warmed up on the real pairs.

The paper samples pairs, so one image may come twice with other captions. Here an image comes once, with one of its
captions drawn at random (this project's definition): a budget of N pairs then always shows N different images, and
every method starts from the same candidates.

Shapes: M pairs (captions), I images and so candidates, F features, D embedding width, E epochs, B pairs of a batch.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from repblend.data.features import Features
from repblend.evaluation.towers import HeadPair
from repblend.experts.training import ExpertBatch, TrainingPairs, draw_epoch, train_expert, with_dropout
from repblend.matching.losses import cosine_logits, unit
from repblend.matching.student import PerModality, TwoTower
from repblend.params.evaluate import Select
from repblend.streams import stream

PAIRS_AT_ONCE = 8192
"""Pairs that are computed with at once, where all of them would take several times the memory of their features."""


@dataclass(frozen=True)
class RealPairs:
    """What a coreset is chosen from: one pair of every training image, and heads that are trained on all pairs."""

    features: Features
    heads: HeadPair
    settings: Select
    seed: int

    @cached_property
    def candidates(self) -> Tensor:
        """(I,) int64 caption rows, one of every image."""
        return candidate_pairs(self.features.train_image_index, self.seed)

    @cached_property
    def pairs(self) -> TrainingPairs:
        """All pairs."""
        return TrainingPairs.of(self.features)

    def joint_features(self) -> Tensor:
        """Return the candidates' joint features (I, 2 D) under heads that were warmed up on all pairs."""
        epochs = self._epochs(self.settings.warm_up.epochs)
        warm = deque(self._trained_heads(epochs), maxlen=1)[0]  # never those of all steps in memory
        features = self.features
        parts = [joint_features(features.images_of(features.train_image_index[part]), features.texts_of(part), warm,
                                self.heads.student) for part in self.candidates.split(PAIRS_AT_ONCE)]
        return torch.cat(parts)

    def times_forgotten(self) -> Tensor:
        """Return how often each candidate was forgotten, (I,); the training goes on where the warm-up ends."""
        epochs = self._epochs(self.settings.forgetting_epochs)
        correct, seen = record_correctness(self.pairs, epochs, self._trained_heads(epochs), self.heads.student)
        return forgetting_counts(correct, seen)[self.candidates]

    def _epochs(self, num: int) -> list[list[ExpertBatch]]:
        pairs = self.pairs
        return [draw_epoch(len(pairs.texts), pairs.num_views, self.settings.warm_up.batch_size,
                           stream(self.seed, "coreset", "warm-up", "epoch", epoch)) for epoch in range(num)]

    def _trained_heads(self, epochs: list[list[ExpertBatch]]) -> Iterator[PerModality]:
        """Yield the initial heads, then those after every step."""
        settings = self.settings.warm_up
        initial = self.heads.initial(stream(self.seed, "coreset", "warm-up", "image head"),
                                     stream(self.seed, "coreset", "warm-up", "text head"))
        yield initial
        draws = with_dropout((draw for epoch in epochs for draw in epoch), self.heads.draw_masks,
                             stream(self.seed, "coreset", "warm-up", "dropout"))
        steps = train_expert(self.pairs, initial, draws, self.heads.student, settings.lr, 0.0, 0.0,
                             settings.temperature)
        yield from (after for _, after in steps)


def _k_center(real: RealPairs, budget: int) -> list[int]:
    first = torch.randint(len(real.candidates), (), generator=stream(real.seed, "coreset", "k-center", "first"))
    return k_center(real.joint_features(), budget, int(first))


def _forgetting(real: RealPairs, budget: int) -> list[int]:
    order = torch.randperm(len(real.candidates), generator=stream(real.seed, "coreset", "forgetting", "order"))
    return forgetting(real.times_forgotten(), order, budget)


CORESETS: dict[str, Callable[[RealPairs, int], list[int]]] = {
    "random": lambda real, budget: _random_rows(len(real.candidates), budget, real.seed),
    "herding": lambda real, budget: herding(real.joint_features(), budget),
    "k-center": _k_center, "forgetting": _forgetting}
"""Coreset method, by its name in `params.yaml` -> from the real pairs and a budget to the chosen candidates."""


def choose(method: str, budget: int, real: RealPairs) -> list[int]:
    """Return the caption rows of a coreset.

    Raises:
        ValueError: no coreset method has this name, or the budget exceeds the training images.
    """
    if method not in CORESETS:
        raise ValueError(f"grid.coresets: {method!r} is not known; expected one of {', '.join(CORESETS)}")
    return real.candidates[CORESETS[method](real, budget)].tolist()


def candidate_pairs(image_index: Tensor, seed: int) -> Tensor:
    """Draw one caption row for every image.

    Args:
        image_index: (M,) int64, the image that each caption row belongs to; images are numbered 0 .. I - 1.

    Returns:
        (I,) int64 caption rows, in the order of the images.
    """
    order = torch.randperm(len(image_index), generator=stream(seed, "coreset", "captions"))
    num_images = int(image_index.max()) + 1
    place = torch.empty(len(image_index), dtype=torch.long)
    place[order] = torch.arange(len(image_index))  # an image's caption is the one with the first place
    first = torch.full((num_images,), len(image_index)).scatter_reduce(0, image_index, place, "amin")
    return order[first]


INITIAL_CANDIDATES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "one-per-image": candidate_pairs, "any": lambda image_index, seed: torch.arange(len(image_index))}
"""Which pairs a distillation may start from, by its name in `params.yaml`; of any, an image may come more than once."""


def random_pairs(candidates: Tensor, num_pairs: int, seed: int) -> list[int]:
    """Draw of the candidates (I,), caption rows, without replacement; a larger draw begins with the smaller one.

    Raises:
        ValueError: there are fewer candidates than pairs.
    """
    return candidates[_random_rows(len(candidates), num_pairs, seed)].tolist()


def _random_rows(num_rows: int, num_pairs: int, seed: int) -> list[int]:
    _check_budget("random coreset", num_rows, num_pairs)
    return torch.randperm(num_rows, generator=stream(seed, "coreset", "random"))[:num_pairs].tolist()


def _check_budget(method: str, num_rows: int, num_pairs: int) -> None:
    if num_pairs > num_rows:
        raise ValueError(f"{method}: expected a budget of at most {num_rows} (one pair per training image), found "
                         f"{num_pairs}; lower grid.budgets")


def joint_features(images: Tensor, texts: Tensor, heads: PerModality, student: TwoTower) -> Tensor:
    """Return the concatenated unit image and unit text embeddings of every pair, (I, 2 D).

    Args:
        images: (I, D_img) frozen features.
        texts: (I, D_txt) frozen features.
        heads: (P,) each, warmed up on the real pairs.
    """
    return torch.cat([unit(student.image(images, heads.img)), unit(student.text(texts, heads.txt))], dim=1)


def herding(features: Tensor, num_pairs: int) -> list[int]:
    """Choose rows of (I, F) one by one, each the one that brings the chosen rows' sum nearest to its share of the mean.

    Returns different rows in the order chosen; of equally near ones the first. Raises `ValueError` if there are fewer.
    """
    _check_budget("herding", len(features), num_pairs)
    mean, total = features.mean(dim=0), torch.zeros_like(features[0])
    chosen: list[int] = []
    for count in range(1, num_pairs + 1):
        distances = torch.cat([(count * mean - total - part).norm(dim=1) for part in features.split(PAIRS_AT_ONCE)])
        distances[chosen] = torch.inf
        chosen.append(int(distances.argmin()))
        total = total + features[chosen[-1]]
    return chosen


def k_center(features: Tensor, num_pairs: int, first: int) -> list[int]:
    """Choose rows of (I, F) one by one, after a first one each the farthest (Euclidean) from its nearest chosen row.

    Returns rows in the order chosen; of equally far ones the first. Raises `ValueError` if there are fewer.
    """

    def distances(row: int) -> Tensor:
        return torch.cat([(part - features[row]).norm(dim=1) for part in features.split(PAIRS_AT_ONCE)])

    _check_budget("k-center", len(features), num_pairs)
    chosen, nearest = [first], distances(first)
    nearest[first] = -1.0  # never chosen again, even among rows that are all alike
    while len(chosen) < num_pairs:
        chosen.append(int(nearest.argmax()))
        nearest = nearest.minimum(distances(chosen[-1]))
        nearest[chosen[-1]] = -1.0
    return chosen


# Forgetting. While heads train, a pair is *correct* at a step that draws it if its image and its caption retrieve each
# other at rank one inside the batch, under the heads from before the step. A pair is *forgotten* whenever it was right
# the last time it was drawn and is not now. Pairs forgotten least come first, pairs never correct last of all. This
# project's definitions: a tie is lost, as in `repblend.evaluation.recall`; an epoch that does not draw a pair (a last
# partial batch is dropped) says nothing about it, so its state stays what it was.


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
    _check_budget("forgetting", len(counts), num_pairs)
    return order[counts[order].argsort(stable=True)][:num_pairs].tolist()


def forgetting_counts(correct_EM: Tensor, seen_EM: Tensor) -> Tensor:
    """Return (M,) float64: how often each pair went from correct to incorrect, infinity if it was never correct.

    Args:
        correct_EM: (E, M) bool, whether a pair was correct when it was drawn; ignored where it was not drawn.
        seen_EM: (E, M) bool, whether an epoch drew the pair.
    """
    counts_M = torch.zeros(correct_EM.shape[1], dtype=torch.float64)
    known_M = torch.zeros_like(correct_EM[0])  # whether the pair was correct when it was last drawn
    for correct_M, seen_M in zip(correct_EM, seen_EM, strict=True):
        counts_M += known_M & seen_M & ~correct_M
        known_M = torch.where(seen_M, correct_M, known_M)
    counts_M[~(correct_EM & seen_EM).any(0)] = torch.inf
    return counts_M


def mutual_first(scores_BB: Tensor) -> Tensor:
    """Return (B,) bool: whether row b and column b of the scores each have their strict maximum in (b, b).

    Raises:
        ValueError: a score is NaN or infinite.
    """
    if not torch.isfinite(scores_BB).all():
        raise ValueError("forgetting: found NaN or infinite scores; the heads diverged: lower select.warm_up.lr")
    own_B = scores_BB.diagonal()
    return ((scores_BB >= own_B[:, None]).sum(1) == 1) & ((scores_BB >= own_B).sum(0) == 1)


def record_correctness(pairs: TrainingPairs, epochs: list[list[ExpertBatch]], heads_before: Iterable[PerModality],
                       student: TwoTower) -> tuple[Tensor, Tensor]:
    """Watch a training, and return which pairs each epoch found correct and which it drew, (E, M) bool each.

    Args:
        epochs: every epoch's batches.
        heads_before: the heads (P,) from before each batch's step, in the order of the steps; taken one by one.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    correct_EM = torch.zeros(len(epochs), len(pairs.texts), dtype=torch.bool)
    seen_EM, heads = torch.zeros_like(correct_EM), iter(heads_before)
    for epoch, batches in enumerate(epochs):
        for draw in batches:
            (images, texts), before = pairs.batch(draw), next(heads)
            with torch.no_grad():
                scores_BB = cosine_logits(student.image(images, before.img), student.text(texts, before.txt),
                                          temperature=1.0)
            correct_EM[epoch, draw.pairs] = mutual_first(scores_BB)
            seen_EM[epoch, draw.pairs] = True
    return correct_EM, seen_EM
