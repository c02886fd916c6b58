"""TESLA's gradient where projection heads are matched, of all segments at once (`paper/METHOD.md`, section 6).

The same as `repblend.matching.gradient.constant_memory_gradient`, up to rounding, in a fraction of the time. It rests
on what a head is, a linear layer and then little:

- *First layers stay in the span of the features.* Batches mix the same rows F: x_k = M_k F, with M_k (B, R) from the
  draws and from blending. A first layer's gradient is P_k^T x_k, with P_k (B, D) that in its outputs p_k, so

      W(k) = W(0) + Y_k^T F,    p_k = x_k W(k)^T + b(k) = M_k F W(0)^T + M_k (F F^T) Y_k + b(k)

  with Y_k = -eta sum_{j<k} M_j^T P_j. Products with W(0) and with W(0) - W* are taken once, not at every step.
- *Nothing is computed twice.* What a step leaves behind, a few arrays of the size of its batch, is what its second
  derivatives need (`repblend.encoders.later_layers`).

The students of all segments take their steps together.

Noise in the place of blending adds constant rows to F, which get no gradient.

Shapes: S segments, K steps, B rows of a batch, N pairs, R rows (N, and those of noise), D_in and D widths, H = 2 S
heads, the S image heads before the S text heads, P parameters of one head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from repblend.encoders import later_layers
from repblend.encoders.heads import HeadSpec
from repblend.encoders.later_layers import Backward, Forward, LaterLayers
from repblend.matching.blending import Noise
from repblend.matching.gradient import Matched, Normaliser, Segment, pulled_back
from repblend.matching.losses import at_targets, in_units
from repblend.matching.similarity import Similarity
from repblend.matching.student import InnerStep, Masks, PerModality, StudentLoss, SyntheticData


def heads_gradient(data: SyntheticData, rates: PerModality, segments: Sequence[Segment],
                   students: Sequence[Sequence[InnerStep]], heads: tuple[HeadSpec, HeadSpec], objective: StudentLoss,
                   normaliser: Normaliser) -> Matched:
    """Return the matching losses and TESLA's gradient, averaged over the segments.

    Args:
        data: features (N, D_in) of both modalities and the similarity; gradients of what is learned of it are
            returned, never accumulated.
        rates: inner learning rates eta, scalars.
        segments: S stretches of expert trajectories.
        students: for each, the K draws of its student; all batches have the same size.
        heads: of images and of texts, of one width.
    """
    num_segments, draws = len(segments), Draws.of(data, students, heads[0].dropout)
    sides = [Side.of(rows, spec, [segment.start[number] for segment in segments],
                     [segment.target[number] for segment in segments])
             for number, (rows, spec) in enumerate(zip(draws.rows, heads, strict=True))]
    rate = torch.stack(rates).repeat_interleave(num_segments)  # (H,)
    steps = run_heads(data.similarity, draws, rate, sides, objective)
    # R = theta(0) - theta* - eta G. That of the first layers is known by its products with F.
    in_rows, rest = _gradient_sums(steps)
    away, gram, apart, distances, weight_distances = (torch.cat([getattr(side, name) for side in sides]) for name in (
        "away", "gram", "apart", "distances", "weight_distances"))
    spanned, left = gram @ in_rows, apart - rate[:, None] * rest
    against, size = _total(in_rows, away), _total(in_rows, spanned)  # <G_W, W(0) - W*>, |G_W|^2
    residuals = weight_distances - 2 * rate * against + rate.square() * size + left.square().sum(1)
    losses = residuals / distances
    rate_gradients = -2 * (against - rate * size + (left * rest).sum(1)) / distances
    factor = -2 * rate / torch.cat(normaliser(PerModality(*distances.split(num_segments))))  # direction = factor R
    direction = Direction.of(sides[0].spec.d, factor, away - rate[:, None, None] * spanned, left)
    gradients = dict[str, Tensor]()
    if data.learned():  # the inner rates alone need no second pass
        curvature = _curvature(steps, direction, objective)
        gradients = _data_gradient(data, draws.indices, sides, curvature, in_rows, factor, rate)

    def mean(values: Tensor) -> PerModality:
        return PerModality(*values.view(2, -1).mean(1))

    return Matched(mean(losses), gradients, mean(rate_gradients))


def _total(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2))


@dataclass(frozen=True)
class Draws:
    """All draws of an iteration, stacked."""

    indices: Tensor
    """(K, S, B) pairs."""
    rows: PerModality
    """F, (S or 1, R, D_in) each: the features, and noise as it is added."""
    mixing: Tensor
    """M, (K, H, B, R)."""
    kept: Tensor | None
    """(K, H, B, D): 1 over the share of units that dropout keeps while the students run, 0 where it drops."""
    kept_again: Tensor | None
    """As `kept`, of the second pass."""

    @classmethod
    def of(cls, data: SyntheticData, students: Sequence[Sequence[InnerStep]], dropout: float) -> "Draws":
        """Stack the draws of S students."""
        steps = list(zip(*students, strict=True))
        one_hot = torch.eye(len(data.images), dtype=data.images.dtype, device=data.images.device)
        mixing = torch.stack([torch.stack([each.mixed(one_hot[each.indices]) for each in step]) for step in steps])
        rows = PerModality(data.images[None], data.texts[None])
        if isinstance(steps[0][0].perturbation, Noise):
            rows = PerModality(*(torch.stack([torch.cat([side, *(_noise(data, step)[number] for step in student)])
                                              for student in students])
                                 for number, side in enumerate((data.images, data.texts))))
            own = torch.eye(len(steps) * mixing.shape[2], dtype=mixing.dtype, device=mixing.device)
            own = own.unflatten(0, (len(steps), 1, -1))
            mixing = torch.cat([mixing, own.expand(-1, len(students), -1, -1)], dim=3)
        kept = again = _stacked([[each.masks for each in step] for step in steps], dropout, one_hot.dtype)
        if any(each.masks is not each.gradient_masks for step in steps for each in step):
            again = _stacked([[each.gradient_masks for each in step] for step in steps], dropout, one_hot.dtype)
        return cls(torch.stack([torch.stack([each.indices for each in step]) for step in steps]), rows,
                   mixing.repeat(1, 2, 1, 1), kept, again)


def _noise(data: SyntheticData, step: InnerStep) -> tuple[Tensor, Tensor]:
    assert step.perturbation is not None
    images, texts = data.images[step.indices], data.texts[step.indices]
    noisy_images, noisy_texts = step.perturbation.apply(images, texts)
    return noisy_images - images, noisy_texts - texts


def _stacked(masks: Sequence[Sequence[Masks]], dropout: float, like: torch.dtype) -> Tensor | None:
    if masks[0][0].img is None:
        return None
    kept = torch.stack([torch.stack([side for each in sides for side in each])
                        for sides in (zip(*step, strict=True) for step in masks)])
    return kept.to(like) / (1 - dropout)


class Side(NamedTuple):
    """The S heads of one modality at their segments' starts, and how far those are from the targets."""

    spec: HeadSpec
    rows: Tensor
    """F, (S or 1, R, D_in)."""
    first: list[Tensor]
    """W(0), S times (D, D_in)."""
    steps: list[Tensor]
    """W(0) - W*, likewise."""
    made: Tensor
    """F W(0)^T, (S, R, D)."""
    away: Tensor
    """F (W(0) - W*)^T, likewise."""
    gram: Tensor
    """F F^T, (S, R, R)."""
    bias: Tensor
    """b(0), (S, 1, D)."""
    later: LaterLayers
    apart: Tensor
    """theta(0) - theta* without the weights of first layers, (S, P - D D_in)."""
    weight_distances: Tensor
    """|W(0) - W*|^2, (S,)."""
    distances: Tensor
    """|theta(0) - theta*|^2, (S,)."""

    @classmethod
    def of(cls, rows: Tensor, spec: HeadSpec, starts: Sequence[Tensor], targets: Sequence[Tensor]) -> "Side":
        """Take products with the features."""
        size = spec.sizes[0]
        apart = [start - target for start, target in zip(starts, targets, strict=True)]
        first, steps = ([flat[:size].view(spec.d, spec.d_in) for flat in flats] for flats in (starts, apart))
        rest = torch.stack([each[size:] for each in apart])
        weight_distances = torch.stack([each[:size] @ each[:size] for each in apart])
        made, away = (torch.stack([each @ weight.mT for each, weight in zip(_each(rows, len(starts)), weights,
                                                                            strict=True)])
                      for weights in (first, steps))
        return cls(spec, rows, first, steps, made, away, (rows @ rows.mT).expand(len(starts), -1, -1),
                   torch.stack([start[size:size + spec.d] for start in starts])[:, None],
                   LaterLayers.of(starts, spec), rest, weight_distances, weight_distances + rest.square().sum(1))


def _each(rows: Tensor, num_segments: int) -> Sequence[Tensor]:
    return rows.expand(num_segments, -1, -1).unbind()


class Step(NamedTuple):
    """What one step of all students leaves behind."""

    mixing: Tensor
    """M, (H, B, R)."""
    layers: LaterLayers
    coefficients: Tensor
    """Y, (H, R, D)."""
    passed: Forward
    back: Backward
    graph: "LossGraph"
    kept: Tensor | None
    """As `Draws.kept`, of the second pass."""
    same: bool
    """Whether the second pass keeps the same units."""


def run_heads(similarity: Similarity, draws: Draws, rate: Tensor, sides: Sequence[Side],
              objective: StudentLoss) -> list[Step]:
    """Take the students' steps, at rates (H,)."""
    rate = rate[:, None, None]
    made, gram, bias = (torch.cat([getattr(side, name) for side in sides]) for name in ("made", "gram", "bias"))
    targets = similarity.batch(draws.indices).expand(*draws.indices.shape, -1)
    layers, coefficients, steps = LaterLayers.joined([side.later for side in sides]), torch.zeros_like(made), []
    for number, mixing in enumerate(draws.mixing):
        kept, again = (None if each is None else each[number] for each in (draws.kept, draws.kept_again))
        projected = torch.baddbmm(mixing @ made, mixing @ gram, coefficients).add_(bias)
        passed = later_layers.forward(layers, projected, kept)
        graph = LossGraph.of(passed.units, targets[number], objective)
        back = later_layers.backward(layers, passed, *graph.in_units(passed.units, objective), kept)
        steps.append(Step(mixing, layers, coefficients, passed, back, graph, again, draws.kept is draws.kept_again))
        moved = rate * back.projected
        coefficients = torch.baddbmm(coefficients, mixing.mT, moved, alpha=-1)
        bias = bias - moved.sum(1, keepdim=True)
        layers = LaterLayers(torch.baddbmm(layers.weight, (rate * back.hidden).mT, passed.active, alpha=-1),
                             *(value - rate * slope for value, slope in zip(
                                 layers[1:], later_layers.vector_slopes(passed, back), strict=True)))
    return steps


class LossGraph(NamedTuple):
    """The losses of one step, ready to be differentiated once more. Of the logits alone, which are small: to PyTorch's
    forward derivatives of its losses' backward passes, ten times as slow, this is the alternative.
    """

    logits: Tensor
    """(S, B, B), a leaf."""
    targets: Tensor
    """Likewise."""
    slope: Tensor
    """The gradient in the logits, a function of both."""

    @classmethod
    def of(cls, units: Tensor, targets: Tensor, objective: StudentLoss) -> "LossGraph":
        """Return that of unit embeddings (H, B, D)."""
        images, texts = units.chunk(2)
        logits = (images @ texts.mT).div_(objective.temperature).requires_grad_()
        targets = targets.detach().requires_grad_()
        return cls(logits, targets, at_targets(objective.loss, targets).slope(logits))

    def in_units(self, units: Tensor, objective: StudentLoss) -> tuple[Tensor, Tensor]:
        """Return the gradient in the unit embeddings, (H, B, D), and its product with each, (H, B, 1)."""
        return in_units(units, self.logits.detach(), self.slope.detach(), objective.temperature)

    def changes(self, units: Tensor, moved: Tensor, objective: StudentLoss) -> tuple[Tensor, Tensor]:
        """Return how the gradients in the units and in the targets change when the units do, (H, B, D)."""
        (images, texts), (moved_images, moved_texts) = units.chunk(2), moved.chunk(2)
        change = torch.baddbmm(moved_images @ texts.mT, images, moved_texts.mT).div_(objective.temperature)
        bent, of_targets = pulled_back([self.slope], [change], [self.logits, self.targets])
        slope, bent = self.slope.detach() / objective.temperature, bent / objective.temperature
        return torch.cat([torch.baddbmm(bent @ texts, slope, moved_texts),
                          torch.baddbmm(bent.mT @ images, slope.mT, moved_images)]), of_targets


def _gradient_sums(steps: Sequence[Step]) -> tuple[Tensor, Tensor]:
    """G: of first layers sum_k M_k^T P_k, (H, R, D), whose transpose times F it is; all else (H, P - D D_in)."""
    in_rows, weight = torch.zeros_like(steps[0].coefficients), torch.zeros_like(steps[0].layers.weight)
    for step in steps:
        in_rows.baddbmm_(step.mixing.mT, step.back.projected)
        weight.baddbmm_(step.back.hidden.mT, step.passed.active)
    bias, *vectors = (sum(values[1:], start=values[0]) for values in zip(*(
        (step.back.projected.sum(1, keepdim=True), *later_layers.vector_slopes(step.passed, step.back))
        for step in steps), strict=True))
    return in_rows, torch.cat([bias[:, 0], LaterLayers(weight, *vectors).flat()], dim=1)


# The second pass: how every step's gradient changes along the direction c = factor R.


class Direction(NamedTuple):
    """A direction of the parameters of all heads."""

    away: Tensor
    """F c_W^T, (H, R, D)."""
    bias: Tensor
    """c_b, (H, 1, D)."""
    later: LaterLayers

    @classmethod
    def of(cls, width: int, factor: Tensor, away: Tensor, rest: Tensor) -> "Direction":
        """Return `factor` (H,) times what F makes of the first layers' weights, and times the rest (H, P - D D_in)."""
        bias, weight, *vectors = (factor[:, None] * rest).split([width, width**2, width, width, width], dim=1)
        return cls(factor[:, None, None] * away, bias[:, None],
                   LaterLayers(weight.unflatten(1, (width, width)), *(vector[:, None] for vector in vectors)))


class Curvature(NamedTuple):
    """Sums over the steps; with P_k the gradients in p_k and H_k their derivatives along the direction."""

    straight: Tensor
    """sum_k M_k^T P_k, (H, R, D)."""
    bent: Tensor
    """sum_k M_k^T H_k, likewise."""
    within: Tensor
    """sum_k M_k^T H_k Y_k^T, (H, R, R)."""
    targets: list[Tensor]
    """Of each step how the gradient in the targets changes, (S, B, B)."""


def _curvature(steps: Sequence[Step], direction: Direction, objective: StudentLoss) -> Curvature:
    straight, bent = torch.zeros_like(direction.away), torch.zeros_like(direction.away)
    within, targets = torch.zeros_like(steps[0].mixing[:, :1] * direction.away[:, :, :1]), []
    for step in steps:
        layers, passed, back, graph, kept = step.layers, step.passed, step.back, step.graph, step.kept
        if not step.same:  # other functions than those of the students' run
            passed = later_layers.forward(layers, passed.projected, kept)
            graph = LossGraph.of(passed.units, graph.targets, objective)
            back = later_layers.backward(layers, passed, *graph.in_units(passed.units, objective), kept)
        along = later_layers.tangent(layers, direction.later, passed,
                                     torch.baddbmm(direction.bias, step.mixing, direction.away), kept)
        in_units, of_targets = graph.changes(passed.units, along.units, objective)
        in_rows = step.mixing.mT @ later_layers.bent(layers, direction.later, passed, back, along, in_units, kept)
        straight.baddbmm_(step.mixing.mT, back.projected)
        bent.add_(in_rows)
        within.baddbmm_(in_rows, step.coefficients.mT)
        targets.append(of_targets)
    return Curvature(straight, bent, within, targets)


def _data_gradient(data: SyntheticData, indices: Tensor, sides: Sequence[Side], curvature: Curvature, in_rows: Tensor,
                   factor: Tensor, rate: Tensor) -> dict[str, Tensor]:
    """Return the mean over segments of the data gradient of sum_k <c, g_k>.

    Of the rows F it is P c_W + H W, summed over the steps, with c_W = factor (W(0) - W* - eta Z^T F), Z = `in_rows`.
    """
    num_segments, found = indices.shape[1], {}
    straight = factor[:, None, None] * curvature.straight
    within = curvature.within - rate[:, None, None] * (straight @ in_rows.mT)
    for name, side, *products in zip(("images", "texts"), sides, *(each.split(num_segments) for each in (
            straight, curvature.bent, within)), strict=True):
        if name in data.constant:
            continue
        total = torch.zeros_like(side.rows[0])
        for own, bent, inside, rows, away, first in zip(*products, _each(side.rows, num_segments), side.steps,
                                                        side.first, strict=True):
            total.addmm_(own, away).addmm_(bent, first).addmm_(inside, rows)
        found[name] = total[:len(data.images)] / num_segments
    values = data.similarity.tensors()
    leaves = {name: value.detach().requires_grad_() for name, value in values.items() if name not in data.constant}
    if leaves:
        batches = data.similarity.with_tensors(values | leaves).batch(indices)
        found |= dict(zip(leaves, pulled_back([batches], [torch.stack(curvature.targets) / num_segments],
                                              list(leaves.values())), strict=True))
    return found
