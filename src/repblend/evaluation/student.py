"""Training of students, which see nothing but a synthetic set, or the real one (`paper/METHOD.md`, section 8).

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

from repblend.experts.training import Descent, ExpertBatch, TrainingPairs
from repblend.matching.losses import LOSSES, cosine_logits
from repblend.matching.student import NO_DROPOUT, Masks, PerModality, TwoTower

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


OnEpoch = Callable[[int, Callable[[], PerModality], Tensor], None]
"""(epoch, what returns the heads (S, P), mean loss of the epoch's rows (S,)), after each epoch. The heads are put
together when they are asked for, which few epochs do, and may be live: copy to keep."""


EpochMasks = Callable[[int], Callable[[int], Masks]]
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


def draw_slices(num_pairs: int, epochs: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw one seed's batches: an epoch's are cut from one permutation, the last is what is left of it.

    So does the released MTT-VL. Returns as `draw_student_batches`, -1 where the last batch has no pair.
    """
    if num_pairs <= batch_size:
        return draw_student_batches(num_pairs, epochs, batch_size, generator)
    nothing = torch.full((-num_pairs % batch_size,), -1)
    orders = [torch.cat([torch.randperm(num_pairs, generator=generator), nothing]) for _ in range(epochs + 1)]
    return torch.stack(orders).view(epochs + 1, -1, batch_size)


BATCHES = {"subsets": draw_student_batches, "partition": draw_partition, "slices": draw_slices}
"""How one seed's batches are drawn, by its name in `params.yaml`."""


def train_students(image_features: Tensor, text_features: Tensor, targets: Tensor, initial: PerModality,
                   batch_indices: Tensor, student: TwoTower, recipe: Recipe, on_epoch: OnEpoch,
                   draw_masks: EpochMasks = no_dropout) -> PerModality:
    """Train one student per seed on a synthetic set.

    Args:
        image_features: (N, D_img) frozen features of the set's images, not blended.
        text_features: (N, D_txt).
        targets: (N, N) soft similarity.
        initial: (S, P) heads of each modality; not changed. Where they are, the training is.
        batch_indices: (S, E + 1, batches per epoch, B) int64, distinct within a batch; -1 behind a short last one.
        student: how a flat vector acts on features.
        draw_masks: the draws of dropout.

    Returns:
        The trained heads, (S, P) each.

    Raises:
        ValueError: a loss is NaN or infinite; the message names epoch and seed. The heads are not updated by it.
    """

    def batch(rows: Tensor) -> StudentBatch:
        return StudentBatch(image_features[rows], text_features[rows], targets[rows[:, :, None], rows[:, None, :]])

    last = int((batch_indices[0, 0, -1] >= 0).sum())
    epochs = ((batch(rows) for rows in (*epoch[:, :-1].unbind(1), epoch[:, -1, :last]))
              for epoch in batch_indices.unbind(1))
    return train_on(epochs, initial, student, recipe, on_epoch, draw_masks)


def train_students_on_real_pairs(pairs: TrainingPairs, initial: PerModality, draws: Iterable[list[list[ExpertBatch]]],
                                 student: TwoTower, recipe: Recipe, on_epoch: OnEpoch,
                                 draw_masks: EpochMasks = no_dropout) -> PerModality:
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


def train_on(epochs: Iterable[Iterable[StudentBatch]], initial: PerModality, student: TwoTower, recipe: Recipe,
             on_epoch: OnEpoch, draw_masks: EpochMasks = no_dropout) -> PerModality:
    """Train one student per seed on the given batches; arguments, result and errors as in `train_students`."""
    heads = PerModality(*(value.clone().requires_grad_() for value in initial))
    optimiser = Descent([[heads.img], [heads.txt]], [recipe.lr_img, recipe.lr_txt], recipe.momentum,
                        recipe.weight_decay, fused=True)
    device = heads.img.device

    def trained() -> PerModality:
        return PerModality(*(value.detach() for value in heads))

    for epoch, batches in enumerate(epochs):
        if epoch == recipe.decay_from:
            optimiser.rates = [rate * LR_DECAY for rate in optimiser.rates]
        masks, total, num_rows = draw_masks(epoch), torch.zeros(len(heads.img), device=device), 0
        for batch in batches:
            size = batch.texts.shape[1]
            losses = batch_losses(batch.to(device), heads, student, recipe, masks(size).to(device))
            check_losses(losses, epoch, recipe)
            losses.sum().backward()
            optimiser.step()
            total, num_rows = total + size * losses.detach(), num_rows + size
        on_epoch(epoch, trained, total / num_rows)
    return trained()


def check_losses(losses: Tensor, epoch: int, recipe: Recipe) -> None:
    """Raise `ValueError` if a student's loss, of (S,), is NaN or infinite."""
    if not torch.isfinite(losses).all():
        seed = int((~torch.isfinite(losses)).nonzero()[0])
        raise ValueError(f"student {seed}, epoch {epoch}: the loss is {losses[seed].item()}; expected a finite "
                         f"number. Lower the set's learning rates (found {recipe.lr_img:g} and "
                         f"{recipe.lr_txt:g})")


def batch_losses(batch: StudentBatch, heads: PerModality, student: TwoTower, recipe: Recipe, masks: Masks) -> Tensor:
    """Return each seed's loss on its batch, (S,)."""
    images, texts = embed(batch.images, batch.texts, heads, student, masks)
    return LOSSES[recipe.loss](cosine_logits(images, texts, recipe.temperature), batch.targets)


def embed(images: Tensor, texts: Tensor, heads: PerModality, student: TwoTower,
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
