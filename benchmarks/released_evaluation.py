"""Our re-implementation of how the released evaluation of a set goes, as the yardstick of this project's.

The released code is not here and nothing of it is copied: this is written from `paper/METHOD.md`, sections 8 and 9, and
from the order of work of the released RepBlend. What takes its time, and is kept:

- one student after the other, with `torch.optim.SGD` and autograd;
- the frozen encoder looks at the set's images anew in every batch of every epoch, and at the test images anew at every
  scored epoch; nothing of it is remembered;
- the encoder is timm's as it comes: BatchNorm layers not folded, plain memory layout;
- a query's best candidates are picked query by query, and ranks are found query by query in Python, from a full sort.

Two things are more favourable to it than the release: images are in memory (there, test images are read and resized
anew whenever they are looked at), and an encoder is loaded once for all students. One is needed for equal numbers: the
encoder is in evaluation mode (the release has it in training mode, which matters with BatchNorm layers alone), and
heads are without dropout.

That it is a fair twin is tested: from the same initial heads and batches it reaches the same recalls.

Shapes: N pairs, I test images, M test captions, D embedding width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from repblend.encoders.heads import LAYER_NORM_EPSILON, HeadSpec
from repblend.evaluation.recall import MEAN_RECALL, RECALLS, REJECTED, TOP_K
from repblend.evaluation.student import LR_DECAY, Recipe
from repblend.matching.losses import LOSSES
from repblend.matching.student import PerModality

CANDIDATES = 128
"""A query's candidates that keep their score."""


class ProjectionHead(nn.Module):
    """A projection head as a module."""

    def __init__(self, spec: HeadSpec, flat: Tensor) -> None:
        """Start from a flat vector (P,)."""
        super().__init__()
        self.first, self.second = nn.Linear(spec.d_in, spec.d), nn.Linear(spec.d, spec.d)
        self.norm = nn.LayerNorm(spec.d, eps=LAYER_NORM_EPSILON)
        self.to(flat.dtype)
        nn.utils.vector_to_parameters(flat.clone(), self.parameters())

    def forward(self, rows: Tensor) -> Tensor:
        """Return (B, D) of rows (B, D_in)."""
        projected = self.first(rows)
        embedded: Tensor = self.norm(self.second(nn.functional.gelu(projected)) + projected)
        return embedded


class RetrievalTask(NamedTuple):
    """The test split as the release has it: images, and captions that were encoded beforehand."""

    images: Tensor
    """(I, 3, H, W) normalised pixels."""
    texts: Tensor
    """(M, D_txt)."""
    text_to_image: Tensor
    """(M,) int64."""


class Student(nn.Module):
    """A frozen encoder and two projection heads."""

    def __init__(self, encoder: nn.Module, heads: Sequence[HeadSpec], initial: PerModality) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_head, self.text_head = (ProjectionHead(spec, flat)
                                           for spec, flat in zip(heads, initial, strict=True))

    def forward(self, images: Tensor, texts: Tensor, temperature: float) -> Tensor:
        """Return the logits (B, B) of a batch."""
        u = nn.functional.normalize(self.image_head(self.encoder(images)))
        w = nn.functional.normalize(self.text_head(texts))
        return u @ w.T / temperature


def evaluate_one_student(images: Tensor, texts: Tensor, targets: Tensor, student: Student, batches: Tensor,
                         recipe: Recipe, scored: Sequence[int], task: RetrievalTask) -> list[dict[str, float]]:
    """Train one student on a set; return its recalls in percent at the scored epochs.

    Args:
        images: (N, 3, H, W) pixels.
        texts: (N, D_txt).
        targets: (N, N).
        batches: (E + 1, batches per epoch, B) the pairs of every batch.
    """
    optimisers = [torch.optim.SGD(head.parameters(), lr=rate, momentum=recipe.momentum,
                                  weight_decay=recipe.weight_decay)
                  for head, rate in ((student.image_head, recipe.lr_img), (student.text_head, recipe.lr_txt))]
    recalls = []
    for epoch, rows in enumerate(batches):
        if epoch == recipe.decay_from:
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] *= LR_DECAY
        for row in rows:
            logits = student(images[row], texts[row], recipe.temperature)
            loss = LOSSES[recipe.loss](logits, targets[row][:, row])
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()
        if epoch in scored:
            recalls.append(score_one_student(student, task, len(rows[0]), recipe.temperature))
    return recalls


@torch.no_grad()
def score_one_student(student: Student, task: RetrievalTask, batch_size: int, temperature: float) -> dict[str, float]:
    """Return the recalls of one student on the test split, in percent."""
    u = torch.cat([nn.functional.normalize(student.image_head(student.encoder(part)))
                   for part in task.images.split(batch_size)])
    w = nn.functional.normalize(student.text_head(task.texts))
    scores = u @ w.T / temperature
    own_captions = [[] for _ in task.images]  # type: list[list[int]]
    for caption, image in enumerate(task.text_to_image.tolist()):
        own_captions[image].append(caption)
    ranks = {"ir": _ranks(_best_candidates(scores.T), [[image] for image in task.text_to_image.tolist()]),
             "tr": _ranks(_best_candidates(scores), own_captions)}
    found = {f"{direction}_at_{k}": 100 * sum(rank < k for rank in ranks[direction]) / len(ranks[direction])
             for direction in ranks for k in TOP_K}
    return found | {MEAN_RECALL: sum(found[name] for name in RECALLS) / len(RECALLS)}


def _best_candidates(scores: Tensor) -> Tensor:
    """Query by query, keep the best candidates' scores."""
    kept = torch.full_like(scores, REJECTED)
    for query, row in enumerate(scores):
        best, positions = row.topk(min(CANDIDATES, len(row)))
        kept[query, positions] = best
    return kept


def _ranks(scores: Tensor, answers: list[list[int]]) -> list[int]:
    """Query by query, the position of the best right answer among all candidates, sorted."""
    ranks = []
    for row, right in zip(scores, answers, strict=True):
        order = row.argsort(descending=True)
        ranks.append(min(int((order == answer).nonzero()[0]) for answer in right))
    return ranks
