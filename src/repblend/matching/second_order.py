"""How an inner step's gradient is differentiated once more, along a direction of the parameters.

Two ways, equal up to rounding:

- *forward over reverse*: the derivative, along the direction, of the data gradient. A fifth of the time of the other
  where a whole encoder is matched, and nothing of a step has to be kept. PyTorch cannot do it through every activation:
  there is no forward derivative of SiLU's backward pass (so NFNets).
- *double backward*: differentiates <direction, d loss / d theta>, backward pass and all.

Shapes: P parameters of one modality.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from repblend.matching.step import (
    InnerStep,
    Objective,
    PerModality,
    Student,
    SyntheticData,
    as_leaves,
    inner_loss,
    per_modality,
)


class Curvature(NamedTuple):
    """One inner step's gradient, and how it changes along a direction of the parameters."""

    slopes: PerModality
    """d loss / d theta, (P,) each."""
    data: dict[str, Tensor]
    """Data gradient of <direction, slopes>."""
    theta: PerModality
    """Hessian times direction, (P,) each."""


class StepGraph(NamedTuple):
    """One inner step at constant parameters, ready to be differentiated with respect to the data."""

    leaves: SyntheticData
    theta: PerModality
    """Leaves as well, (P,) each."""
    loss: Tensor
    slopes: PerModality
    """d loss / d theta, (P,) each, functions of the leaves."""

    def mixed_gradient(self, directions: PerModality) -> dict[str, Tensor]:
        """Return the data gradient of sum_m <direction_m, slope_m>."""
        tensors = self.leaves.tensors()
        gradients = torch.autograd.grad(self._projection(directions), list(tensors.values()))
        return dict(zip(tensors, gradients, strict=True))

    def curvature(self, directions: PerModality) -> Curvature:
        """Return that gradient, and the Hessian in theta times the directions."""
        tensors = self.leaves.tensors()
        img, txt, *gradients = torch.autograd.grad(self._projection(directions), [*self.theta, *tensors.values()])
        return Curvature(per_modality(Tensor.detach, self.slopes), dict(zip(tensors, gradients, strict=True)),
                         PerModality(img, txt))

    def _projection(self, directions: PerModality) -> Tensor:
        return self.slopes.img @ directions.img + self.slopes.txt @ directions.txt


def step_graph(data: SyntheticData, theta: PerModality, step: InnerStep, student: Student,
               objective: Objective) -> StepGraph:
    """Run one inner step and keep its graph."""
    leaves, parameters = data.as_leaves(), as_leaves(theta)
    loss = inner_loss(student.dropping(step.masks), parameters, leaves.rows(step.indices), step.perturbation,
                      objective)
    return StepGraph(leaves, parameters, loss, PerModality(*torch.autograd.grad(loss, parameters, create_graph=True)))


class SecondOrder(NamedTuple):
    """One way; both functions take (direction, data, theta, step, student, objective)."""

    data_gradient: Callable[..., dict[str, Tensor]]
    """The data gradient of <direction, d loss / d theta>."""
    curvature: Callable[..., Curvature]
    """That, and the Hessian in theta times the direction."""


def _data_gradient_forward(direction: PerModality, data: SyntheticData, theta: PerModality, step: InnerStep,
                           student: Student, objective: Objective) -> dict[str, Tensor]:
    with forward_ad.dual_level():
        leaves, parameters = data.as_leaves(), per_modality(forward_ad.make_dual, theta, direction)
        loss = inner_loss(student.dropping(step.masks), parameters, leaves.rows(step.indices), step.perturbation,
                          objective)
        tensors = leaves.tensors()
        slopes = torch.autograd.grad(loss, list(tensors.values()))
        return {name: _tangent(slope) for name, slope in zip(tensors, slopes, strict=True)}


def _curvature_forward(direction: PerModality, data: SyntheticData, theta: PerModality, step: InnerStep,
                       student: Student, objective: Objective) -> Curvature:
    with forward_ad.dual_level():
        leaves = data.as_leaves()
        parameters = per_modality(forward_ad.make_dual, as_leaves(theta), direction)
        loss = inner_loss(student.dropping(step.masks), parameters, leaves.rows(step.indices), step.perturbation,
                          objective)
        tensors = leaves.tensors()
        img, txt, *slopes = torch.autograd.grad(loss, [*parameters, *tensors.values()])
        slopes_of_theta = PerModality(*(forward_ad.unpack_dual(slope).primal for slope in (img, txt)))
        along = {name: _tangent(slope) for name, slope in zip(tensors, slopes, strict=True)}
        return Curvature(slopes_of_theta, along, PerModality(_tangent(img), _tangent(txt)))


def _tangent(value: Tensor) -> Tensor:
    tangent = forward_ad.unpack_dual(value).tangent
    return torch.zeros_like(value) if tangent is None else tangent


SECOND_ORDER = {
    "forward-over-reverse": SecondOrder(_data_gradient_forward, _curvature_forward),
    "double-backward": SecondOrder(lambda direction, *step: step_graph(*step).mixed_gradient(direction),
                                   lambda direction, *step: step_graph(*step).curvature(direction)),
}
"""Both ways by their name."""


def with_fastest_second_order(student: Student, data: SyntheticData, theta: PerModality,
                              objective: Objective) -> Student:
    """Return the student, to be differentiated forward over reverse where PyTorch can do that through its towers.

    Args:
        data: a few pairs to try it on.
        theta: parameters, (P,) each, likewise.
    """
    step = InnerStep(torch.arange(len(data.images), device=data.images.device), None)
    try:
        _data_gradient_forward(theta, data, theta, step, student, objective)
    except NotImplementedError:
        return student._replace(second_order="double-backward")
    return student._replace(second_order="forward-over-reverse")
