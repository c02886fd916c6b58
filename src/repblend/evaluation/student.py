"""Training of students: heads that see nothing but a synthetic set, or the real one, on cached features
(PAPER.md section 6; parity/README.md section 6).

All evaluation seeds are trained at once: a head per seed, stacked, so that each step is one batched product instead
of S small ones. Seeds never mix: the summed loss has, for each seed's parameters, that seed's own gradient.

Shapes: S seeds, E + 1 epochs (0..E), N pairs, B pairs of a batch, P parameters of a head.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from repblend.experts.training import ExpertBatch, TrainingPairs
from repblend.matching.losses import LOSSES, cosine_logits
from repblend.matching.step import NO_DROPOUT, Masks, PerModality, Student

LR_DECAY = 0.1


@dataclass(frozen=True)
class Recipe:
    """How students are optimised: SGD with heavy-ball momentum on both heads."""

    lr_img: float
    lr_txt: float
    momentum: float
    weight_decay: float
    """Added to the gradient, as published."""
    loss: str
    """A name in `repblend.matching.losses.LOSSES`."""
    temperature: float
    decay_from: int | None
    """First epoch whose learning rates are a tenth; None keeps them."""


class StudentBatch(NamedTuple):
    """What the students see in one step."""

    images: Tensor
    """(S, B, D_img) image features."""
    texts: Tensor
    """(S, B, D_txt) text features."""
    targets: Tensor
    """(S, B, B) similarity that the logits should have; rows images."""

    def to(self, device: torch.device) -> "StudentBatch":
        """Return the same batch on a device."""
        return StudentBatch(*(value.to(device) for value in self))


OnEpoch = Callable[[int, PerModality, Tensor], None]
"""(epoch, heads (S, P), mean loss of the epoch's batches (S,)), after each epoch. The heads are live: copy to keep."""


DrawMasks = Callable[[int], Callable[[int], Masks]]
"""epoch -> (rows of a batch -> what every seed's heads keep in it, (S, B, D)), called for the batches in turn."""


def no_dropout(epoch: int) -> Callable[[int], Masks]:
    """Drop nothing."""
    return lambda num_rows: NO_DROPOUT


def published_decay_start(epochs: int) -> int:
    """Return the first epoch with a tenth of the learning rate, for students that train epochs 0..E."""
    return epochs // 2 + 1


def draw_student_batches(num_pairs: int, epochs: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw one seed's batches: each the first entries of its own reshuffle, so batches of an epoch overlap.

    A set that fits into one batch is that batch, in order.

    Returns:
        (E + 1, ceil(N / batch_size), min(batch_size, N)) int64.
    """
    if num_pairs <= batch_size:
        return torch.arange(num_pairs).expand(epochs + 1, 1, -1)
    num_batches = math.ceil(num_pairs / batch_size)
    shuffles = [torch.randperm(num_pairs, generator=generator)[:batch_size] for _ in range((epochs + 1) * num_batches)]
    return torch.stack(shuffles).view(epochs + 1, num_batches, batch_size)


def draw_partition(num_pairs: int, epochs: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw one seed's batches: an epoch's are cut from one permutation, the last filled up from its beginning.

    Every epoch so shows every pair. Returns as `draw_student_batches`.
    """
    if num_pairs <= batch_size:
        return draw_student_batches(num_pairs, epochs, batch_size, generator)
    num_batches = math.ceil(num_pairs / batch_size)
    orders = [torch.randperm(num_pairs, generator=generator) for _ in range(epochs + 1)]
    return torch.stack([order.repeat(2)[:num_batches * batch_size] for order in orders]).view(
        epochs + 1, num_batches, batch_size)


BATCHES = {"subsets": draw_student_batches, "partition": draw_partition}
"""How one seed's batches are drawn, by its name in `params.yaml`."""


def train_students(image_features: Tensor, text_features: Tensor, targets: Tensor, initial: PerModality,
                   batch_indices: Tensor, student: Student, recipe: Recipe, on_epoch: OnEpoch,
                   draw_masks: DrawMasks = no_dropout) -> PerModality:
    """Train one student per seed on a synthetic set.

    Args:
        image_features: (N, D_img) frozen features of the set's images, not blended.
        text_features: (N, D_txt).
        targets: (N, N) soft similarity.
        initial: (S, P) heads of each modality; not changed. Where they are, the training is.
        batch_indices: (S, E + 1, batches per epoch, B) int64, distinct within a batch.
        student: how a flat vector acts on features.
        draw_masks: the draws of dropout.

    Returns:
        The trained heads, (S, P) each.

    Raises:
        ValueError: a loss is NaN or infinite; the message names epoch and seed. The heads are not updated by it.
    """

    def batch(rows: Tensor) -> StudentBatch:
        return StudentBatch(image_features[rows], text_features[rows], targets[rows[:, :, None], rows[:, None, :]])

    epochs = ((batch(rows) for rows in epoch.unbind(1)) for epoch in batch_indices.unbind(1))
    return train_on(epochs, initial, student, recipe, on_epoch, draw_masks)


def train_students_on_real_pairs(pairs: TrainingPairs, initial: PerModality, draws: Iterable[list[list[ExpertBatch]]],
                                 student: Student, recipe: Recipe, on_epoch: OnEpoch,
                                 draw_masks: DrawMasks = no_dropout) -> PerModality:
    """Train one student per seed on the full training set: every caption belongs to its own row's image only.

    Args:
        draws: for each epoch, for each seed, its batches; as many of the same size for every seed.

    Returns and raises as `train_students`.
    """

    def batches(epoch: list[list[ExpertBatch]]) -> Iterator[StudentBatch]:
        for draws_of_seeds in zip(*epoch, strict=True):
            images, texts = zip(*(pairs.batch(draw) for draw in draws_of_seeds), strict=True)
            size = len(texts[0])
            yield StudentBatch(torch.stack(images), torch.stack(texts), torch.eye(size).expand(len(texts), size, size))

    return train_on(map(batches, draws), initial, student, recipe, on_epoch, draw_masks)


def train_on(epochs: Iterable[Iterable[StudentBatch]], initial: PerModality, student: Student, recipe: Recipe,
             on_epoch: OnEpoch, draw_masks: DrawMasks = no_dropout) -> PerModality:
    """Train one student per seed on the given batches; arguments, result and errors as in `train_students`."""
    heads = PerModality(*(value.clone().requires_grad_() for value in initial))
    groups = [{"params": [heads.img], "lr": recipe.lr_img}, {"params": [heads.txt], "lr": recipe.lr_txt}]
    optimiser = torch.optim.SGD(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True)
    device = heads.img.device
    for epoch, batches in enumerate(epochs):
        if epoch == recipe.decay_from:
            _decay(optimiser)
        masks = draw_masks(epoch)
        losses_KS = [_step(batch.to(device), heads, student, recipe, optimiser, epoch,
                           masks(batch.texts.shape[1]).to(device)) for batch in batches]
        on_epoch(epoch, PerModality(*(value.detach() for value in heads)), torch.stack(losses_KS).mean(0))
    return PerModality(*(value.detach() for value in heads))


def _step(batch: StudentBatch, heads: PerModality, student: Student, recipe: Recipe,
          optimiser: torch.optim.Optimizer, epoch: int, masks: Masks) -> Tensor:
    losses = batch_losses(batch, heads, student, recipe, masks)
    if not torch.isfinite(losses).all():
        seed = int((~torch.isfinite(losses)).nonzero()[0])
        raise ValueError(f"student {seed}, epoch {epoch}: the loss is {losses[seed].item()}; expected a finite number. "
                         f"Lower the set's learning rates (found {recipe.lr_img:g} and {recipe.lr_txt:g})")
    optimiser.zero_grad()
    losses.sum().backward()
    optimiser.step()
    return losses.detach()


def batch_losses(batch: StudentBatch, heads: PerModality, student: Student, recipe: Recipe,
                 masks: Masks = NO_DROPOUT) -> Tensor:
    """Return each seed's loss on its batch, (S,)."""
    images, texts = embed(batch.images, batch.texts, heads, student, masks)
    logits = cosine_logits(images, texts, recipe.temperature)  # (S, B, B)
    loss = LOSSES[recipe.loss]
    return torch.stack([loss(*pair) for pair in zip(logits, batch.targets, strict=True)])


def embed(images: Tensor, texts: Tensor, heads: PerModality, student: Student,
          masks: Masks = NO_DROPOUT) -> PerModality:
    """Apply each seed's towers to its rows.

    Args:
        images: (S, B, D_img), or (S, B, 3, H, W) where the image encoder is trained.
        texts: (S, C, D_txt).
        heads: (S, P) each.
        masks: what each seed's heads keep, (S, B, D) and (S, C, D).

    Returns:
        (S, B, D) and (S, C, D), not normalised.
    """
    towers = zip((student.embed_images, student.text), (images, texts), heads, masks, strict=True)
    return PerModality(*(student.stack(tower)(rows, flat, *([] if kept is None else [kept]))
                         for tower, rows, flat, kept in towers))


def _decay(optimiser: torch.optim.Optimizer) -> None:
    for group in optimiser.param_groups:
        group["lr"] *= LR_DECAY
