"""The matching loss and its gradients (symmetric matching, SM, where heads are matched; `paper/METHOD.md`, section 6).

A student starts at an expert's snapshot theta(0), takes K steps of plain SGD on synthetic batches, and is compared with
the expert's later snapshot theta*. Per modality m, with g_m,k = d l_k / d theta_m and G_m their sum over the steps,

    theta_m(k+1) = theta_m(k) - eta_m g_m,k,      theta_m(K) = theta_m(0) - eta_m G_m
    L_m = || theta_m(K) - theta*_m ||^2 / D_m,    D_m = || theta_m(0) - theta*_m ||^2,    L = L_img + L_txt

There are two gradients with respect to the synthetic data, the table `GRADIENTS`:

- `constant_memory_gradient` (TESLA, LoRS): the inner parameters theta(k) are constants, only the explicit dependence of
  each g_m,k on its own batch counts. Where heads are matched (RepBlend), `repblend.matching.heads` computes the same in
  less time.
- `unrolled_gradient` (MTT-VL): exact, through all K steps.

What all of them need of a step is the data gradient of <direction, g_k>; the table `SECOND_ORDER` has two ways to it.

Shapes: N pairs, B pairs of a batch, K inner steps, P parameters of one modality.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from repblend.matching.student import (
    Device,
    InnerStep,
    PerModality,
    StudentLoss,
    SyntheticData,
    TwoTower,
    inner_loss,
    on,
    per_modality,
)


class Segment(NamedTuple):
    """The stretch of an expert trajectory that the student has to reproduce."""

    start: PerModality
    """theta(0), (P,) each."""
    target: PerModality
    """theta*, (P,) each."""

    def to(self, device: Device) -> "Segment":
        return Segment(on(device, self.start), on(device, self.target))

    def distances(self) -> PerModality:
        """Return D, the squared distance of start and target, a scalar each."""
        return per_modality(lambda start, target: (start - target).square().sum(), *self)


@dataclass(frozen=True)
class InnerTrace:
    """What the student went through."""

    thetas: list[PerModality]
    """K + 1 parameter vectors, (P,) each; the first is the expert's start."""
    gradient_sum: PerModality
    """G, (P,) each."""
    losses: list[Tensor]
    """K inner losses, scalars."""


@dataclass(frozen=True)
class MatchingGradient:
    """The matching losses and what the outer optimiser needs."""

    losses: PerModality
    """L_img and L_txt, scalars; their sum is the reported matching loss, also with joint normalisation."""
    data: dict[str, Tensor]
    """Gradients of `SyntheticData.learned()`, by the same names."""
    rates: PerModality
    """Gradients of the inner learning rates, scalars; but for `unrolled_gradient` with separate normalisers, as
    published."""
    trace: InnerTrace


Normaliser = Callable[[PerModality], PerModality]
"""From the distances D to what the data gradient of each modality's squared residual is divided by."""
NORMALISERS: dict[str, Normaliser] = {"separate": lambda distances: distances,
                                      "joint": lambda distances: PerModality(*[distances.img + distances.txt] * 2)}
"""By its name in `params.yaml`: each modality's loss over its own distance (the released Flickr30K scripts), or both
over the sum of both (the paper's formula and the released COCO scripts)."""


def constant_memory_gradient(data: SyntheticData, rates: PerModality, segment: Segment, steps: Sequence[InnerStep],
                             student: TwoTower, objective: StudentLoss, normaliser: Normaliser) -> MatchingGradient:
    """Return the matching losses and TESLA's gradient, which holds every inner parameter vector constant.

    Two passes over the steps. The first runs the student and sums its gradients G. The second adds up, step by step,
    the data gradient of 2 <c_m, g_m,k> / D_m with c = eta (theta* - theta(0)) + eta^2 G, which is that of L_m.

    Args:
        data: the synthetic data; gradients are returned, never accumulated into it.
        rates: inner learning rates eta, scalars.
        segment: where the student starts and where it should arrive.
        steps: K draws. Both passes use the same ones, but for dropout, whose draws each pass has its own of.
    """
    second_order = SECOND_ORDER[student.second_order]
    trace = run_student(segment.start, rates, steps, partial(_slopes, data, student, objective))
    return _truncated(data, rates, segment, trace, normaliser, steps, (
        partial(second_order.data_gradient, data, theta, step._replace(masks=step.gradient_masks), student, objective)
        for step, theta in zip(steps, trace.thetas, strict=False)))


def unrolled_gradient(data: SyntheticData, rates: PerModality, segment: Segment, steps: Sequence[InnerStep],
                      student: TwoTower, objective: StudentLoss, normaliser: Normaliser) -> MatchingGradient:
    """Return the matching losses and their exact gradient, through all inner steps (MTT).

    Arguments and result as `constant_memory_gradient`, except that the rates' gradients are normalised as the data's
    are: there is one objective here. The steps are walked back with the adjoint a = d L / d theta, from a(K) at the
    end. With H_k the Hessian of step k's loss in theta, and u = -eta a(k+1),

        a(k) = a(k+1) + H_k u,    data gradient += d <u, g_k> / d data,    rate gradient -= <a(k+1), g_k>

    H_k u and the data gradient come from one pass. Besides the K + 1 parameter vectors nothing is kept.
    """
    second_order = SECOND_ORDER[student.second_order]
    trace = run_student(segment.start, rates, steps, partial(_slopes, data, student, objective))
    distances = segment.distances()
    residuals = per_modality(torch.sub, trace.thetas[-1], segment.target)
    adjoint = per_modality(lambda residual, distance: 2 * residual / distance, residuals, normaliser(distances))
    gradients, rate_gradients = _zeros(data), per_modality(torch.zeros_like, rates)
    for step, theta in zip(reversed(steps), reversed(trace.thetas[:-1]), strict=True):
        direction = per_modality(lambda rate, value: -rate * value, rates, adjoint)
        curvature = second_order.curvature(data, theta, step, student, objective, direction)
        _add(gradients, curvature.data, step.indices)
        rate_gradients = per_modality(lambda total, value, slope: total - value @ slope, rate_gradients, adjoint,
                                      curvature.slopes)
        adjoint = per_modality(torch.add, adjoint, curvature.theta)
    return MatchingGradient(_matching_losses(residuals, distances), gradients, rate_gradients, trace)


GRADIENTS = {"constant-memory": constant_memory_gradient, "unrolled": unrolled_gradient}
"""Ways to differentiate the matching loss of any model, by their name in a method's declaration."""


class Matched(NamedTuple):
    """What an iteration's segments came to, averaged over them; as in `MatchingGradient`."""

    losses: PerModality
    data: dict[str, Tensor]
    rates: PerModality


MatchSegments = Callable[[SyntheticData, PerModality, Sequence[Segment], Sequence[Sequence[InnerStep]]], Matched]
"""(data, rates, S segments, the draws of each one's student) -> their mean matching loss and its gradients."""


def one_by_one(gradient: Callable[..., MatchingGradient], student: TwoTower, objective: StudentLoss,
               normaliser: Normaliser) -> MatchSegments:
    """Return what matches segments one after the other, by a gradient of `GRADIENTS`."""

    def match(data: SyntheticData, rates: PerModality, segments: Sequence[Segment],
              students: Sequence[Sequence[InnerStep]]) -> Matched:
        matched = [gradient(data, rates, segment, steps, student, objective, normaliser)
                   for segment, steps in zip(segments, students, strict=True)]
        losses, rate_gradients = (PerModality(*map(_mean, zip(*values, strict=True)))
                                  for values in ([m.losses for m in matched], [m.rates for m in matched]))
        return Matched(losses, {name: _mean([m.data[name] for m in matched]) for name in data.learned()},
                       rate_gradients)

    return match


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(tuple(values)).mean(dim=0)


def run_student(start: PerModality, rates: PerModality, steps: Iterable[InnerStep],
                slopes: Callable[[PerModality, InnerStep], tuple[Tensor, PerModality]]) -> InnerTrace:
    """Take the student's steps of plain SGD from the expert's snapshot.

    Args:
        slopes: the loss l_k of a step at given parameters, and its gradient g_k, (P,) each; what else it keeps of the
            step is its own affair.
    """
    thetas, losses = [start], []
    gradient_sum = per_modality(torch.zeros_like, start)
    for step in steps:
        loss, gradient = slopes(thetas[-1], step)
        with torch.no_grad():
            per_modality(Tensor.add_, gradient_sum, gradient)
            thetas.append(per_modality(_descend, thetas[-1], rates, gradient))
        losses.append(loss.detach())
    return InnerTrace(thetas, gradient_sum, losses)


def _descend(theta: Tensor, rate: Tensor, gradient: Tensor) -> Tensor:
    """Return theta - rate gradient; in place of its second term, which is in the processor's cache."""
    moved = rate * gradient
    return torch.sub(theta, moved, out=moved)


def _slopes(data: SyntheticData, student: TwoTower, objective: StudentLoss, theta: PerModality,
            step: InnerStep) -> tuple[Tensor, PerModality]:
    """The loss of a step and its gradient in theta, nothing kept for differentiation."""
    parameters = _leaves(theta)
    loss = inner_loss(student, parameters, data.rows(step.indices), step, objective)
    return loss, PerModality(*torch.autograd.grad(loss, parameters))


def _leaves(theta: PerModality) -> PerModality:
    """The same values as new leaves that gradients can be taken with respect to."""
    return per_modality(lambda value: value.detach().requires_grad_(), theta)


def _truncated(data: SyntheticData, rates: PerModality, segment: Segment, trace: InnerTrace, normaliser: Normaliser,
               steps: Iterable[InnerStep],
               data_gradients: Iterable[Callable[[PerModality], dict[str, Tensor]]]) -> MatchingGradient:
    """Put TESLA's gradient together.

    Args:
        data_gradients: for every step, from directions, (P,) each, to the data gradient of <direction, g_k>.
    """
    distances = segment.distances()
    residuals = per_modality(lambda start, target, rate, total: start - rate * total - target,
                             segment.start, segment.target, rates, trace.gradient_sum)
    directions = per_modality(lambda rate, residual, distance: -2 * rate * residual / distance,
                              rates, residuals, normaliser(distances))
    gradients = _zeros(data)
    for step, data_gradient in zip(steps, data_gradients, strict=True) if gradients else ():
        _add(gradients, data_gradient(directions), step.indices)
    rate_gradients = per_modality(lambda residual, total, distance: -2 * (residual @ total) / distance,
                                  residuals, trace.gradient_sum, distances)
    return MatchingGradient(_matching_losses(residuals, distances), gradients, rate_gradients, trace)


def _matching_losses(residuals: PerModality, distances: PerModality) -> PerModality:
    return per_modality(lambda residual, distance: residual.square().sum() / distance, residuals, distances)


def _zeros(data: SyntheticData) -> dict[str, Tensor]:
    return {name: torch.zeros_like(value) for name, value in data.learned().items()}


def _add(totals: dict[str, Tensor], gradients: dict[str, Tensor], indices: Tensor) -> None:
    """Add one step's gradients to those of all data: images' and texts' are of the batch's rows (`_batch_leaves`)."""
    for name, gradient in gradients.items():
        if name in ("images", "texts"):
            totals[name].index_add_(0, indices, gradient)
        else:
            totals[name] += gradient


# How an inner step's gradient is differentiated once more, along a direction of the parameters. Two ways, equal up to
# rounding:
#
# - *forward over reverse*: the derivative, along the direction, of the data gradient. A fifth of the time of the other
#   where a whole encoder is matched, and nothing of a step has to be kept. PyTorch cannot do it through every
#   activation: there is no forward derivative of SiLU's backward pass (so NFNets).
# - *double backward*: differentiates <direction, g_k>, backward pass and all.


class Curvature(NamedTuple):
    """One inner step's gradient, and how it changes along a direction of the parameters."""

    slopes: PerModality
    """g_k, (P,) each."""
    data: dict[str, Tensor]
    """Data gradient of <direction, g_k>; of images and texts the batch's rows (B, ...) only."""
    theta: PerModality
    """Hessian times direction, (P,) each."""


class SecondOrder(NamedTuple):
    """One way; both functions take (data, theta, step, student, objective, direction)."""

    data_gradient: Callable[..., dict[str, Tensor]]
    """The data gradient of <direction, g_k>."""
    curvature: Callable[..., Curvature]
    """That, and the Hessian in theta times the direction."""


class StepGraph(NamedTuple):
    """One inner step at constant parameters, ready to be differentiated once more."""

    leaves: dict[str, Tensor]
    """The batch's data, as `_batch_leaves`."""
    theta: PerModality
    """Leaves as well, (P,) each."""
    loss: Tensor
    slopes: PerModality
    """g_k, (P,) each, functions of the leaves."""

    def data_gradient(self, directions: PerModality) -> dict[str, Tensor]:
        """Return the data gradient of sum_m <direction_m, slope_m>."""
        gradients = pulled_back(self.slopes, directions, list(self.leaves.values()))
        return dict(zip(self.leaves, gradients, strict=True))

    def curvature(self, directions: PerModality) -> Curvature:
        """Return that gradient, and the Hessian in theta times the directions."""
        img, txt, *gradients = pulled_back(self.slopes, directions, [*self.theta, *self.leaves.values()])
        return Curvature(per_modality(Tensor.detach, self.slopes), dict(zip(self.leaves, gradients, strict=True)),
                         PerModality(img, txt))


def pulled_back(outputs: Sequence[Tensor], cotangents: Sequence[Tensor],
                inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return `torch.autograd.grad(outputs, inputs, cotangents)`, which first imports sympy (for a second)."""
    return torch.autograd.grad(_Cotangents.apply(*cotangents, *outputs), inputs)


class _Cotangents(torch.autograd.Function):
    """A scalar whose gradient with respect to the second half of the tensors is the first half."""

    @staticmethod
    def forward(context: Any, *tensors: Tensor) -> Tensor:
        context.cotangents = tensors[:len(tensors) // 2]
        return tensors[0].new_zeros(())

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *(None for _ in context.cotangents), *context.cotangents


def step_graph(data: SyntheticData, theta: PerModality, step: InnerStep, student: TwoTower,
               objective: StudentLoss) -> StepGraph:
    """Run one inner step and keep its graph."""
    (leaves, batch), parameters = _batch_leaves(data, step), _leaves(theta)
    loss = inner_loss(student, parameters, batch, step, objective)
    return StepGraph(leaves, parameters, loss, PerModality(*torch.autograd.grad(loss, parameters, create_graph=True)))


def _batch_leaves(data: SyntheticData, step: InnerStep) -> tuple[dict[str, Tensor], SyntheticData]:
    """New leaves, of what is learned: images and texts of the batch, all parameters of the similarity; and the batch
    that they make, with what is constant.
    """
    tensors = data.tensors() | {"images": data.images[step.indices], "texts": data.texts[step.indices]}
    leaves = {name: value.detach().requires_grad_() for name, value in tensors.items() if name not in data.constant}
    batch = tensors | leaves
    similarity = data.similarity.with_tensors(batch).rows(step.indices)
    return leaves, SyntheticData(batch["images"], batch["texts"], similarity)


def _data_gradient_forward(data: SyntheticData, theta: PerModality, step: InnerStep, student: TwoTower,
                           objective: StudentLoss, direction: PerModality) -> dict[str, Tensor]:
    with forward_ad.dual_level():
        (leaves, batch), parameters = _batch_leaves(data, step), per_modality(forward_ad.make_dual, theta, direction)
        loss = inner_loss(student, parameters, batch, step, objective)
        slopes = torch.autograd.grad(loss, list(leaves.values()))
        return {name: _tangent(slope) for name, slope in zip(leaves, slopes, strict=True)}


def _curvature_forward(data: SyntheticData, theta: PerModality, step: InnerStep, student: TwoTower,
                       objective: StudentLoss, direction: PerModality) -> Curvature:
    with forward_ad.dual_level():
        leaves, batch = _batch_leaves(data, step)
        parameters = per_modality(forward_ad.make_dual, _leaves(theta), direction)
        loss = inner_loss(student, parameters, batch, step, objective)
        img, txt, *slopes = torch.autograd.grad(loss, [*parameters, *leaves.values()])
        slopes_of_theta = PerModality(*(forward_ad.unpack_dual(slope).primal for slope in (img, txt)))
        along = {name: _tangent(slope) for name, slope in zip(leaves, slopes, strict=True)}
        return Curvature(slopes_of_theta, along, PerModality(_tangent(img), _tangent(txt)))


def _tangent(value: Tensor) -> Tensor:
    tangent = forward_ad.unpack_dual(value).tangent
    return torch.zeros_like(value) if tangent is None else tangent


SECOND_ORDER = {
    "forward-over-reverse": SecondOrder(_data_gradient_forward, _curvature_forward),
    "double-backward": SecondOrder(lambda *step: step_graph(*step[:-1]).data_gradient(step[-1]),
                                   lambda *step: step_graph(*step[:-1]).curvature(step[-1])),
}
"""Both ways by their name."""


def with_fastest_second_order(student: TwoTower, data: SyntheticData, theta: PerModality,
                              objective: StudentLoss) -> TwoTower:
    """Return the student, to be differentiated forward over reverse where PyTorch can do that through its towers.

    Args:
        data: a few pairs to try it on.
        theta: parameters, (P,) each, likewise.
    """
    step = InnerStep(torch.arange(len(data.images), device=data.images.device), None)
    try:
        _data_gradient_forward(data, theta, step, student, objective, theta)
    except NotImplementedError:
        return student._replace(second_order="double-backward")
    return student._replace(second_order="forward-over-reverse")
