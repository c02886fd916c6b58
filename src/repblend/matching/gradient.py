"""The trajectory-matching objective and its gradients (PAPER.md section 2, SM and TESLA; parity/README.md 1.3, 1.4).

A student starts at an expert's snapshot theta_0, takes S steps of plain SGD on synthetic batches, and is compared with
the expert's later snapshot theta*. Per modality m, with G_m the sum of the S inner gradients,

    L_m = || theta_S,m - theta*_m ||^2 / D_m,   D_m = || theta_0,m - theta*_m ||^2,   theta_S,m = theta_0,m - eta_m G_m.

Gradients of it with respect to the synthetic data:

- `constant_memory_gradient` (TESLA, LoRS): the inner parameters theta_i are constants, only the explicit dependence of
  each inner gradient on its own batch counts.
- `kept_graphs_gradient` (RepBlend): the same up to rounding, in less time where small heads are matched.
- `unrolled_gradient` (MTT-VL): exact, through all S steps.

What all of them need of a step is the data gradient of <direction, d loss / d theta>; `second_order` has the ways.

Shapes: N pairs, B pairs of a batch, S inner steps, P parameters of one modality.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from repblend.matching.second_order import SECOND_ORDER, StepGraph, step_graph
from repblend.matching.step import (
    Device,
    InnerStep,
    Objective,
    PerModality,
    Student,
    SyntheticData,
    as_leaves,
    inner_loss,
    on,
    per_modality,
)


class Segment(NamedTuple):
    """The stretch of an expert trajectory that the student has to reproduce."""

    start: PerModality
    """theta_0, (P,) each."""
    target: PerModality
    """theta*, (P,) each."""

    def to(self, device: Device) -> "Segment":
        """Return the same stretch on a device."""
        return Segment(on(device, self.start), on(device, self.target))

    def distances(self) -> PerModality:
        """D: squared distance of start and target, a scalar each."""
        return PerModality(*((start - target).square().sum() for start, target in zip(*self, strict=True)))


@dataclass(frozen=True)
class InnerTrace:
    """What the student went through."""

    thetas: list[PerModality]
    """S + 1 parameter vectors, the first the expert's start."""
    gradient_sum: PerModality
    """G, (P,) each."""
    losses: list[Tensor]
    """S inner losses, scalars."""


@dataclass(frozen=True)
class MatchingGradient:
    """The matching losses and what the outer optimiser needs."""

    losses: PerModality
    """L_img and L_txt, scalars; their sum is the reported matching loss, also with joint normalisation."""
    data: dict[str, Tensor]
    """Gradients of `SyntheticData.tensors()`, by the same names."""
    rates: PerModality
    """Gradients of the inner learning rates, scalars; always with separate normalisers, as published."""
    trace: InnerTrace


def separate_normalisers(distances: PerModality) -> PerModality:
    """Each modality's loss over its own distance (the released Flickr30K scripts)."""
    return distances


def joint_normalisers(distances: PerModality) -> PerModality:
    """Both losses over the sum of both distances (the paper's formula and the released COCO scripts)."""
    total = distances.img + distances.txt
    return PerModality(total, total)


NORMALISERS = {"separate": separate_normalisers, "joint": joint_normalisers}
"""How data gradients are normalised, by its name in `params.yaml`."""

Normaliser = Callable[[PerModality], PerModality]


def constant_memory_gradient(data: SyntheticData, rates: PerModality, segment: Segment, steps: Sequence[InnerStep],
                             student: Student, objective: Objective, normaliser: Normaliser) -> MatchingGradient:
    """Return the matching losses and TESLA's gradient, which holds every inner parameter vector constant.

    Args:
        data: the synthetic data; gradients are returned, never accumulated into it.
        rates: inner learning rates eta, scalars.
        segment: where the student starts and where it should arrive.
        steps: S draws. Both passes use the same ones, but for dropout, whose draws each pass has its own of.

    Two passes over the steps. The first runs the student and sums its gradients G. The second adds up, step by step,
    the data gradient of 2 <c_m, g_m,i> / D_m with c = eta (theta* - theta_0) + eta^2 G, which is that of L_m.
    """
    along = SECOND_ORDER[student.second_order]
    trace = _run_student(data, rates, segment.start, steps, student, objective)

    def mixed_gradients(directions: PerModality) -> Iterator[dict[str, Tensor]]:
        for step, theta in zip(steps, trace.thetas, strict=False):
            yield along.data_gradient(directions, data, theta, step.in_second_pass(), student, objective)

    return _truncated(data, rates, segment, trace, mixed_gradients, normaliser)


def kept_graphs_gradient(data: SyntheticData, rates: PerModality, segment: Segment, steps: Sequence[InnerStep],
                         student: Student, objective: Objective, normaliser: Normaliser) -> MatchingGradient:
    """Return what `constant_memory_gradient` does, up to rounding, from one pass over the steps.

    The graph of every step is kept from the student's run to the data gradient: less time for S graphs of memory,
    which are small where only projection heads are matched. Arguments as there; there is no second pass, so dropout
    has the first one's draws.
    """
    graphs: list[StepGraph] = []

    def slopes(theta: PerModality, step: InnerStep) -> tuple[Tensor, PerModality]:
        graphs.append(step_graph(data, theta, step, student, objective))
        return graphs[-1].loss.detach(), per_modality(Tensor.detach, graphs[-1].slopes)

    trace = _descend(rates, segment.start, steps, slopes)
    return _truncated(data, rates, segment, trace,
                      lambda directions: (graph.mixed_gradient(directions) for graph in graphs), normaliser)


def unrolled_gradient(data: SyntheticData, rates: PerModality, segment: Segment, steps: Sequence[InnerStep],
                      student: Student, objective: Objective, normaliser: Normaliser) -> MatchingGradient:
    """Return the matching losses and their exact gradient, through all inner steps (MTT).

    Arguments and result as `constant_memory_gradient`, except that the rates' gradients are normalised as the data's
    are: there is one objective here. The steps are walked back with the adjoint a = d L / d theta, from a_S at the end:

        a_i = a_i+1 + H_i u,   data gradient += d <u, g_i> / d data,   rate gradient -= <a_i+1, g_i>,   u = -eta a_i+1,

    with H_i the Hessian of step i's loss in theta; H_i u and the data gradient come from one pass. Besides the S + 1
    parameter vectors nothing is kept.
    """
    along = SECOND_ORDER[student.second_order]
    trace = _run_student(data, rates, segment.start, steps, student, objective)
    distances = segment.distances()
    residuals = per_modality(torch.sub, trace.thetas[-1], segment.target)
    adjoint = per_modality(lambda residual, distance: 2 * residual / distance, residuals, normaliser(distances))
    gradients, rate_gradients = _zeros(data), per_modality(torch.zeros_like, rates)
    for step, theta in zip(reversed(steps), reversed(trace.thetas[:-1]), strict=True):
        direction = per_modality(lambda rate, value: -rate * value, rates, adjoint)
        curvature = along.curvature(direction, data, theta, step, student, objective)
        _add(gradients, curvature.data)
        rate_gradients = per_modality(lambda total, value, slope: total - value @ slope, rate_gradients, adjoint,
                                       curvature.slopes)
        adjoint = per_modality(torch.add, adjoint, curvature.theta)
    return MatchingGradient(_matching_losses(residuals, distances), gradients, rate_gradients, trace)


def _truncated(data: SyntheticData, rates: PerModality, segment: Segment, trace: InnerTrace,
               mixed_gradients: Callable[[PerModality], Iterable[dict[str, Tensor]]],
               normaliser: Normaliser) -> MatchingGradient:
    """Put TESLA's gradient together.

    Args:
        mixed_gradients: from directions, (P,) each, to every step's data gradient of <direction, d loss / d theta>.
    """
    distances = segment.distances()
    residuals = per_modality(lambda start, target, rate, total: start - rate * total - target,
                              segment.start, segment.target, rates, trace.gradient_sum)
    directions = per_modality(lambda rate, residual, distance: -2 * rate * residual / distance,
                               rates, residuals, normaliser(distances))
    gradients = _zeros(data)
    for of_step in mixed_gradients(directions):
        _add(gradients, of_step)
    return MatchingGradient(
        losses=_matching_losses(residuals, distances),
        data=gradients,
        rates=per_modality(lambda residual, total, distance: -2 * (residual @ total) / distance,
                            residuals, trace.gradient_sum, distances),
        trace=trace,
    )


def _matching_losses(residuals: PerModality, distances: PerModality) -> PerModality:
    return per_modality(lambda residual, distance: residual.square().sum() / distance, residuals, distances)


def _run_student(data: SyntheticData, rates: PerModality, start: PerModality, steps: Sequence[InnerStep],
                 student: Student, objective: Objective) -> InnerTrace:
    """S plain SGD steps from the expert's snapshot, nothing kept for differentiation."""

    def slopes(theta: PerModality, step: InnerStep) -> tuple[Tensor, PerModality]:
        parameters = as_leaves(theta)
        loss = inner_loss(student.dropping(step.masks), parameters, data.rows(step.indices), step.perturbation,
                          objective)
        return loss.detach(), PerModality(*torch.autograd.grad(loss, parameters))

    return _descend(rates, start, steps, slopes)


def _descend(rates: PerModality, start: PerModality, steps: Iterable[InnerStep],
             slopes: Callable[[PerModality, InnerStep], tuple[Tensor, PerModality]]) -> InnerTrace:
    """Plain SGD.

    Args:
        slopes: the loss of a step at given parameters, and its gradient.
    """
    thetas, losses = [start], []
    gradient_sum = per_modality(torch.zeros_like, start)
    for step in steps:
        loss, gradient = slopes(thetas[-1], step)
        gradient_sum = per_modality(torch.add, gradient_sum, gradient)
        thetas.append(per_modality(lambda value, rate, slope: value - rate * slope, thetas[-1], rates, gradient))
        losses.append(loss)
    return InnerTrace(thetas, gradient_sum, losses)


def _zeros(data: SyntheticData) -> dict[str, Tensor]:
    return {name: torch.zeros_like(value) for name, value in data.tensors().items()}


def _add(totals: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        totals[name] += value


GRADIENTS = {"constant-memory": constant_memory_gradient, "kept-graphs": kept_graphs_gradient,
             "unrolled": unrolled_gradient}
"""Ways to differentiate the matching objective, by their name in a method's declaration."""
