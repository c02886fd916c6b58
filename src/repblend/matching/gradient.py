"""The trajectory-matching objective and its gradients (PAPER.md section 2, SM and TESLA; parity/README.md 1.3, 1.4).

A student starts at an expert's snapshot theta_0, takes S steps of plain SGD on synthetic batches, and is compared with
the expert's later snapshot theta*. Per modality m, with G_m the sum of the S inner gradients,

    L_m = || theta_S,m - theta*_m ||^2 / D_m,   D_m = || theta_0,m - theta*_m ||^2,   theta_S,m = theta_0,m - eta_m G_m.

Two gradients of it with respect to the synthetic data:

- `constant_memory_gradient` (TESLA, LoRS, RepBlend): the inner parameters theta_i are constants, only the explicit
  dependence of each inner gradient on its own batch counts. Memory does not grow with S. `kept_graphs_gradient` gives
  the same bits in less time and more memory.
- `unrolled_gradient` (MTT-VL): exact, through all S steps; memory grows with S.

Shapes: N pairs, B pairs of a batch, S inner steps, P parameters of one modality.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from repblend.matching.blending import Blend, blend_rows
from repblend.matching.losses import Loss, cosine_logits
from repblend.matching.similarity import Similarity

Tower = Callable[[Tensor, Tensor], Tensor]
"""(inputs (B, ...), flat parameters (P,)) -> embeddings (B, D), twice differentiable in both."""


class PerModality(NamedTuple):
    """One tensor for the image side and one for the text side."""

    img: Tensor
    txt: Tensor


class Student(NamedTuple):
    """The matched two-tower model: what a flat parameter vector means on each side."""

    image: Tower
    text: Tower


@dataclass(frozen=True)
class SyntheticData:
    """What is distilled, as the matched model sees it."""

    images: Tensor
    """(N, D_img) frozen features of the synthetic images; pixels where the image encoder itself is matched."""
    texts: Tensor
    """(N, D_txt) raw text embeddings."""
    similarity: Similarity

    def tensors(self) -> dict[str, Tensor]:
        return {"images": self.images, "texts": self.texts} | self.similarity.tensors()

    def rows(self, indices: Tensor) -> "SyntheticData":
        return SyntheticData(self.images[indices], self.texts[indices], self.similarity.rows(indices))

    def with_tensors(self, tensors: dict[str, Tensor]) -> "SyntheticData":
        return SyntheticData(tensors["images"], tensors["texts"], self.similarity.with_tensors(tensors))

    def as_leaves(self) -> "SyntheticData":
        """The same values as new leaves that gradients can be taken with respect to."""
        return self.with_tensors({name: value.detach().requires_grad_() for name, value in self.tensors().items()})


class InnerStep(NamedTuple):
    """The draws of one inner step."""

    indices: Tensor
    """(B,) pairs of the batch, distinct."""
    blend: Blend | None


class Objective(NamedTuple):
    """The student's loss."""

    loss: Loss
    temperature: float


class Segment(NamedTuple):
    """The stretch of an expert trajectory that the student has to reproduce."""

    start: PerModality
    """theta_0, (P,) each."""
    target: PerModality
    """theta*, (P,) each."""

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


def inner_loss(student: Student, theta: PerModality, batch: SyntheticData, blend: Blend | None,
               objective: Objective) -> Tensor:
    """Return the student's loss on one batch, a scalar (parity/README.md section 1.1)."""
    images = student.image(blend_rows(batch.images, blend), theta.img)
    texts = student.text(blend_rows(batch.texts, blend), theta.txt)
    return objective.loss(cosine_logits(images, texts, objective.temperature), batch.similarity.matrix())


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
        steps: S draws; both passes use the same ones.

    Two passes over the steps. The first runs the student and sums its gradients G. The second adds up, step by step,
    the data gradient of 2 <c_m, g_m,i> / D_m with c = eta (theta* - theta_0) + eta^2 G, which is that of L_m.
    """
    trace = _run_student(data, rates, segment.start, steps, student, objective)
    graphs = (_step_graph(data, theta, step, student, objective)
              for step, theta in zip(steps, trace.thetas, strict=False))
    return _matching_gradient(data, rates, segment, trace, graphs, normaliser)


def kept_graphs_gradient(data: SyntheticData, rates: PerModality, segment: Segment, steps: Sequence[InnerStep],
                         student: Student, objective: Objective, normaliser: Normaliser) -> MatchingGradient:
    """Return what `constant_memory_gradient` does, bit for bit, without running the student a second time.

    The graph of every step is kept from the first pass to the second: a third less time for S graphs of memory, which
    are small where only projection heads are matched. Arguments as there.
    """
    thetas, graphs = [segment.start], []
    gradient_sum = PerModality(torch.zeros_like(segment.start.img), torch.zeros_like(segment.start.txt))
    for step in steps:
        graphs.append(_step_graph(data, thetas[-1], step, student, objective))
        gradient = _detached(graphs[-1].slopes)
        gradient_sum = _per_modality(torch.add, gradient_sum, gradient)
        thetas.append(_per_modality(lambda value, rate, slope: value - rate * slope, thetas[-1], rates, gradient))
    trace = InnerTrace(thetas, gradient_sum, [graph.loss.detach() for graph in graphs])
    return _matching_gradient(data, rates, segment, trace, graphs, normaliser)


class StepGraph(NamedTuple):
    """One inner step at constant parameters, ready to be differentiated with respect to the data."""

    leaves: SyntheticData
    loss: Tensor
    slopes: PerModality
    """d loss / d theta, (P,) each, functions of the leaves."""

    def mixed_gradient(self, directions: PerModality) -> dict[str, Tensor]:
        """Return the data gradient of sum_m <direction_m, slope_m>."""
        projection = self.slopes.img @ directions.img + self.slopes.txt @ directions.txt
        tensors = self.leaves.tensors()
        return dict(zip(tensors, torch.autograd.grad(projection, list(tensors.values())), strict=True))


def _step_graph(data: SyntheticData, theta: PerModality, step: InnerStep, student: Student,
                objective: Objective) -> StepGraph:
    leaves = data.as_leaves()
    parameters = PerModality(*(value.detach().requires_grad_() for value in theta))
    loss = inner_loss(student, parameters, leaves.rows(step.indices), step.blend, objective)
    return StepGraph(leaves, loss, PerModality(*torch.autograd.grad(loss, parameters, create_graph=True)))


def _matching_gradient(data: SyntheticData, rates: PerModality, segment: Segment, trace: InnerTrace,
                       graphs: Iterable[StepGraph], normaliser: Normaliser) -> MatchingGradient:
    """Put the student's course and the graphs of its steps together."""
    distances = segment.distances()
    residuals = _per_modality(lambda start, target, rate, total: start - rate * total - target,
                              segment.start, segment.target, rates, trace.gradient_sum)
    directions = _per_modality(lambda rate, residual, distance: -2 * rate * residual / distance,
                               rates, residuals, normaliser(distances))
    gradients = {name: torch.zeros_like(value) for name, value in data.tensors().items()}
    for graph in graphs:
        for name, gradient in graph.mixed_gradient(directions).items():
            gradients[name] += gradient
    return MatchingGradient(
        losses=_per_modality(lambda residual, distance: residual.square().sum() / distance, residuals, distances),
        data=gradients,
        rates=_per_modality(lambda residual, total, distance: -2 * (residual @ total) / distance,
                            residuals, trace.gradient_sum, distances),
        trace=trace,
    )


def _run_student(data: SyntheticData, rates: PerModality, start: PerModality, steps: Sequence[InnerStep],
                 student: Student, objective: Objective) -> InnerTrace:
    """First pass: S plain SGD steps from the expert's snapshot, nothing kept for differentiation."""
    thetas, losses = [start], []
    gradient_sum = PerModality(torch.zeros_like(start.img), torch.zeros_like(start.txt))
    for step in steps:
        theta = PerModality(*(value.detach().requires_grad_() for value in thetas[-1]))
        loss = inner_loss(student, theta, data.rows(step.indices), step.blend, objective)
        gradient = PerModality(*torch.autograd.grad(loss, theta))
        gradient_sum = _per_modality(torch.add, gradient_sum, gradient)
        thetas.append(_per_modality(lambda value, rate, slope: value - rate * slope, thetas[-1], rates, gradient))
        losses.append(loss.detach())
    return InnerTrace(thetas, gradient_sum, losses)


def unrolled_gradient(data: SyntheticData, rates: PerModality, segment: Segment, steps: Sequence[InnerStep],
                      student: Student, objective: Objective, normaliser: Normaliser) -> MatchingGradient:
    """Return the matching losses and their exact gradient, through all inner steps (MTT).

    Arguments and result as `constant_memory_gradient`; memory grows with the number of steps.
    """
    leaves = data.as_leaves()
    rates = PerModality(*(rate.detach().requires_grad_() for rate in rates))
    trace = _unroll(leaves, rates, segment.start, steps, student, objective)
    distances = segment.distances()
    squares = _per_modality(lambda end, target: (end - target).square().sum(), trace.thetas[-1], segment.target)
    losses = _per_modality(torch.div, squares, distances)
    tensors = leaves.tensors()
    normalised = sum(_per_modality(torch.div, squares, normaliser(distances)))
    data_gradients = torch.autograd.grad(normalised, list(tensors.values()), retain_graph=True)
    rate_gradients = torch.autograd.grad(sum(losses), rates)
    return MatchingGradient(
        losses=_detached(losses),
        data=dict(zip(tensors, data_gradients, strict=True)),
        rates=PerModality(*rate_gradients),
        trace=InnerTrace([_detached(theta) for theta in trace.thetas], _detached(trace.gradient_sum),
                         [loss.detach() for loss in trace.losses]),
    )


def _unroll(data: SyntheticData, rates: PerModality, start: PerModality, steps: Sequence[InnerStep],
            student: Student, objective: Objective) -> InnerTrace:
    """S plain SGD steps, all of them kept for differentiation."""
    thetas, losses = [PerModality(*(value.detach().requires_grad_() for value in start))], []
    gradient_sum = PerModality(torch.zeros_like(start.img), torch.zeros_like(start.txt))
    for step in steps:
        loss = inner_loss(student, thetas[-1], data.rows(step.indices), step.blend, objective)
        gradient = PerModality(*torch.autograd.grad(loss, thetas[-1], create_graph=True))
        gradient_sum = _per_modality(torch.add, gradient_sum, gradient)
        thetas.append(_per_modality(lambda value, rate, slope: value - rate * slope, thetas[-1], rates, gradient))
        losses.append(loss)
    return InnerTrace(thetas, gradient_sum, losses)


def _per_modality(function: Callable[..., Tensor], *values: PerModality) -> PerModality:
    return PerModality(*(function(*side) for side in zip(*values, strict=True)))


def _detached(values: PerModality) -> PerModality:
    return _per_modality(Tensor.detach, values)


GRADIENTS = {"constant-memory": constant_memory_gradient, "kept-graphs": kept_graphs_gradient,
             "unrolled": unrolled_gradient}
"""Ways to differentiate the matching objective, by their name in a method's declaration."""
