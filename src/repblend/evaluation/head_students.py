"""Training of students that are projection heads on a set, first layers never formed (`paper/METHOD.md`, section 8).

What `repblend.evaluation.student.train_students` does, up to rounding, in less than half the time. A set has few rows F
(N, D_in), and every gradient of a first layer is a mixture of them, so all that SGD with momentum and weight decay ever
makes of one is

    W = a W(0) + E^T F,    p = F[b] W^T + b1 = a F[b] W(0)^T + (F F^T)[b] E + b1

Its state is the number a and E (N, D), with velocities of their own: the same recursion, since it is linear. The
gradient in E is that in p at the batch's rows; that in a is zero, but weight decay shrinks it. Derivatives of what
follows the first layers are written out in `repblend.encoders.later_layers`.

Scores rest on the same: of a split's rows X (R, D_in), X W^T = a X W(0)^T + X F^T E. The first product is taken once,
not at every scored epoch, and the second is as narrow as the set is small.

Shapes: S students, H = 2 S heads, the S image heads before the S text heads, N pairs, B pairs of a batch, D_in and D
widths, P parameters of a head.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from repblend.data.features import SplitFeatures
from repblend.encoders import later_layers
from repblend.encoders.heads import HeadSpec
from repblend.encoders.later_layers import LaterLayers
from repblend.evaluation.student import LR_DECAY, EpochMasks, OnEpoch, Recipe, check_losses, no_dropout
from repblend.experts.training import Descent
from repblend.matching.losses import LOSSES, at_targets, in_units
from repblend.matching.student import Masks, PerModality


def train_head_students(image_features: Tensor, text_features: Tensor, targets: Tensor, initial: PerModality,
                        batch_indices: Tensor, heads: Sequence[HeadSpec], recipe: Recipe, on_epoch: OnEpoch,
                        draw_masks: EpochMasks = no_dropout) -> PerModality:
    """Train one student per seed on a synthetic set; arguments, result and errors as `train_students`.

    Args:
        heads: of images and of texts, of one width.
    """
    num_students, last = len(initial.img), int((batch_indices[0, 0, -1] >= 0).sum())
    model = HeadStudents((image_features, text_features), targets, initial, heads, recipe)
    for epoch, batches in enumerate(batch_indices.unbind(1)):
        if epoch == recipe.decay_from:
            model.descent.rates = [rate * LR_DECAY for rate in model.descent.rates]
        masks, total, num_rows = draw_masks(epoch), targets.new_zeros(num_students), 0
        for rows in (*batches[:, :-1].unbind(1), batches[:, -1, :last]):  # (S, B)
            losses = model.step(rows, masks(rows.shape[1]).to(targets.device),
                                partial(check_losses, epoch=epoch, recipe=recipe))
            total, num_rows = total + rows.shape[1] * losses, num_rows + rows.shape[1]
        on_epoch(epoch, model, total / num_rows)
    return model()


KEPT_OF_A_SPLIT = 2**25
"""Numbers that are remembered of a split between scored epochs: 128 MiB as float32. Of a larger one, as COCO's with the
paper's encoders, first layers are put together and applied anew."""


class SeenSplit(NamedTuple):
    """What is remembered of a split, image side and text side each."""

    made: list[Tensor]
    """X W(0)^T, (S, R, D)."""
    onto_set: list[Tensor]
    """X F^T, (R, N)."""


class HeadStudents:
    """S students in training. Called, they return their heads."""

    def __init__(self, rows: Sequence[Tensor], targets: Tensor, initial: PerModality, heads: Sequence[HeadSpec],
                 recipe: Recipe) -> None:
        """Begin.

        Args:
            rows: F of both modalities, (N, D_in).
            targets: (N, N).
            initial: (S, P) of each modality.
        """
        self._rows, self._targets, self._heads, self._recipe = rows, targets, heads, recipe
        self._loss = LOSSES[recipe.loss]
        self._whole_set = at_targets(self._loss, targets)
        sizes = [spec.sizes[0] for spec in heads]
        num_students = len(initial.img)
        self._weights = [flats[:, :size].unflatten(1, (spec.d, spec.d_in))  # W(0), (S, D, D_in)
                         for flats, size, spec in zip(initial, sizes, heads, strict=True)]
        self._made = torch.cat([each @ weight.mT for each, weight in zip(rows, self._weights, strict=True)])
        self._gram = torch.cat([(each @ each.mT).expand(num_students, -1, -1) for each in rows])  # (H, N, N)
        self._share = self._made.new_ones(2 * num_students, 1, 1)  # a
        self._coefficients = torch.zeros_like(self._made)  # E, (H, N, D)
        self._bias = torch.cat([flats[:, size:size + spec.d] for flats, size, spec in
                                zip(initial, sizes, heads, strict=True)])[:, None]  # (H, 1, D)
        self._later = LaterLayers.joined([LaterLayers.of(flats.unbind(), spec)
                                          for flats, spec in zip(initial, heads, strict=True)])
        self._trained = (self._coefficients, self._share, self._bias, *self._later)
        self._halves = list(zip(*(value.chunk(2) for value in self._trained), strict=True))
        self.descent = Descent(self._halves, [recipe.lr_img, recipe.lr_txt], recipe.momentum, recipe.weight_decay,
                               fused=True)
        self._seen: dict[int, tuple[SplitFeatures, SeenSplit]] = {}
        self._heads_number = torch.arange(2 * num_students, device=self._made.device)[:, None]
        self._in_order = torch.arange(self._made.shape[1], device=self._made.device)

    def step(self, rows: Tensor, masks: Masks, check: Callable[[Tensor], None]) -> Tensor:
        """Take one step on a batch and return the losses before it, (S,).

        Args:
            rows: (S, B) pairs.
            check: called with the losses before anything changes.
        """
        whole = rows.shape[1] == len(self._in_order) and bool((rows == self._in_order).all())
        place = (slice(None),) if whole else (self._heads_number, rows.repeat(2, 1))
        objective = self._whole_set
        if not whole:
            objective = at_targets(self._loss, self._targets[rows[:, :, None], rows[:, None, :]])
        kept = None
        if masks.img is not None and masks.txt is not None:
            kept = torch.cat([masks.img, masks.txt]).to(self._made.dtype) / (1 - self._heads[0].dropout)
        projected = torch.addcmul(self._bias, self._made[place], self._share)
        passed = later_layers.forward(self._later, projected.baddbmm_(self._gram[place], self._coefficients), kept)
        images, texts = passed.units.chunk(2)
        logits = (images @ texts.mT).div_(self._recipe.temperature)
        losses, in_logits = objective.value_and_slope(logits)
        check(losses)
        back = later_layers.backward(self._later, passed,
                                     *in_units(passed.units, logits, in_logits, self._recipe.temperature), kept)
        in_rows = back.projected
        if not whole:
            in_rows = torch.zeros_like(self._coefficients)
            in_rows[place] = back.projected
        gradients = (in_rows, torch.zeros_like(self._share), back.projected.sum(1, keepdim=True),
                     back.hidden.mT @ passed.active, *later_layers.vector_slopes(passed, back))
        for values, slopes in zip(self._halves, zip(*(each.chunk(2) for each in gradients), strict=True), strict=True):
            for value, each in zip(values, slopes, strict=True):
                value.grad = each
        self.descent.step()
        return losses

    def __call__(self) -> PerModality:
        """Return the heads as they are now, (S, P) of each modality, copied."""
        halves = []
        for weight, rows, (coefficients, share, bias, *later) in zip(self._weights, self._rows, self._halves,
                                                                     strict=True):
            first = torch.addcmul(coefficients.mT @ rows, weight, share)
            halves.append(torch.cat([first.flatten(1), bias.flatten(1), LaterLayers(*later).flat()], dim=1))
        return PerModality(*halves)

    def remembers(self, split: SplitFeatures) -> bool:
        """Return whether a split is small enough for `embed`."""
        return self._made.shape[-1] * len(self._made) // 2 * (len(split.images) + len(split.texts)) <= KEPT_OF_A_SPLIT

    @torch.no_grad()
    def embed(self, split: SplitFeatures) -> Iterator[PerModality]:
        """Yield each student's unit embeddings of a split, (I, D) of its images and (M, D) of its captions."""
        if id(split) not in self._seen:
            self._seen[id(split)] = split, self._look_at(split)  # kept, so that no other takes its place in memory
        _, seen = self._seen[id(split)]
        for number in range(len(self._weights[0])):
            sides = []
            for made, onto_set, (coefficients, share, bias, *later) in zip(seen.made, seen.onto_set, self._halves,
                                                                           strict=True):
                own = slice(number, number + 1)
                projected = torch.addcmul(bias[own], made[own], share[own]).baddbmm_(onto_set[None], coefficients[own])
                layers = LaterLayers(*(value[own] for value in later))
                sides.append(later_layers.forward(layers, projected, None).units[0])
            yield PerModality(*sides)

    def _look_at(self, split: SplitFeatures) -> SeenSplit:
        sides = [side.to(self._made.device) for side in (split.images, split.texts)]
        return SeenSplit([side @ weight.mT for side, weight in zip(sides, self._weights, strict=True)],
                         [side @ rows.mT for side, rows in zip(sides, self._rows, strict=True)])
