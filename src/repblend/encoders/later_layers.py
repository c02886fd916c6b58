"""Projection heads behind their first layers, many at once, with two derivatives (paper/METHOD.md, section 1).

    z = W2 GELU(p) + b2,    v = z + p,    x = (v - mean v) / sigma,    h = scale x + shift,    u = h / |h|

p is what the first layer makes of a batch. Derivatives are written out: a quarter of the operations, and of the time
on a processor, that autograd takes for them, and nothing of a graph has to be kept. Tests compare them with autograd.

Shapes: H heads, B rows of a batch, D width, P parameters of a head.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from repblend.encoders.heads import LAYER_NORM_EPSILON, HeadSpec

gelu_backward = torch.ops.aten.gelu_backward
layer_norm_backward = torch.ops.aten.native_layer_norm_backward


class LaterLayers(NamedTuple):
    """All parameters of heads but those of their first layers."""

    weight: Tensor
    """W2, (H, D, D)."""
    bias: Tensor
    """b2, (H, 1, D), as the other two."""
    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, flats: Sequence[Tensor], spec: HeadSpec) -> "LaterLayers":
        """Return those of flat vectors (P,), copied."""
        parts = [flat.split(spec.sizes)[2:] for flat in flats]
        weight, *vectors = (torch.stack(values) for values in zip(*parts, strict=True))
        return cls(weight.unflatten(1, (spec.d, spec.d)), *(vector[:, None] for vector in vectors))

    @classmethod
    def joined(cls, sides: Sequence["LaterLayers"]) -> "LaterLayers":
        """Return those of several kinds of heads of one width, one kind after the other."""
        return cls(*(torch.cat(values) for values in zip(*sides, strict=True)))

    def flat(self) -> Tensor:
        """Return them in the order of a flat vector, (H, P - D D_in - D)."""
        return torch.cat([value.flatten(1) for value in self], dim=1)


class Forward(NamedTuple):
    """A batch's way through the heads, (H, B, D) each, but for (H, B, 1) of `mean`, `rstd` and `length`."""

    projected: Tensor
    """p."""
    active: Tensor
    """GELU(p)."""
    summed: Tensor
    """v."""
    mean: Tensor
    rstd: Tensor
    """1 / sigma."""
    normal: Tensor
    """x."""
    length: Tensor
    """|h|."""
    units: Tensor
    """u."""


class Backward(NamedTuple):
    """A loss's gradients in what `Forward` has, (H, B, D) each."""

    units: Tensor
    along: Tensor
    """<u, that gradient>, (H, B, 1)."""
    output: Tensor
    """In h."""
    summed: Tensor
    """In v."""
    hidden: Tensor
    """In z, before dropout."""
    active: Tensor
    """In GELU(p)."""
    projected: Tensor
    """In p."""


def forward(layers: LaterLayers, projected: Tensor, kept: Tensor | None) -> Forward:
    """Apply heads to p (H, B, D); `kept` is what dropout keeps of z over the share that it keeps, None without it."""
    active = F.gelu(projected)
    if kept is None:  # v in one go, added up where its other terms are
        summed = (projected + layers.bias).baddbmm_(active, layers.weight.mT)
    else:
        summed = torch.baddbmm(layers.bias, active, layers.weight.mT).mul_(kept).add_(projected)
    normal, mean, rstd = torch.native_layer_norm(summed, summed.shape[-1:], None, None, LAYER_NORM_EPSILON)
    output = torch.addcmul(layers.shift, normal, layers.scale)
    length = output.norm(dim=-1, keepdim=True)
    return Forward(projected, active, summed, mean, rstd, normal, length, output.div_(length))


def backward(layers: LaterLayers, passed: Forward, in_units: Tensor, along: Tensor, kept: Tensor | None) -> Backward:
    """Carry a gradient in u, (H, B, D), back to p; `along` is its product with u, (H, B, 1)."""
    output = torch.addcmul(in_units, passed.units, along, value=-1).div_(passed.length)
    summed = _normalised(output * layers.scale, passed)
    hidden = summed if kept is None else summed * kept
    active = hidden @ layers.weight
    return Backward(in_units, along, output, summed, hidden, active,
                    gelu_backward(active, passed.projected).add_(summed))


def vector_slopes(passed: Forward, back: Backward) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient in b2, scale and shift, (H, 1, D) each; that in W2 is `back.hidden.mT @ passed.active`."""
    return (back.hidden.sum(1, keepdim=True), (back.output * passed.normal).sum(1, keepdim=True),
            back.output.sum(1, keepdim=True))


class Tangent(NamedTuple):
    """How a batch's way through the heads changes along a direction of p and of the parameters, (H, B, D) each."""

    projected: Tensor
    normal: Tensor
    stretch: Tensor
    """Of sigma, relative to it, (H, B, 1)."""
    growth: Tensor
    """Of |h|, likewise."""
    units: Tensor


def tangent(layers: LaterLayers, directions: LaterLayers, passed: Forward, projected: Tensor,
            kept: Tensor | None) -> Tangent:
    """Differentiate `forward` along a direction (H, B, D) of p and one of the parameters."""
    moved = gelu_backward(projected, passed.projected) @ layers.weight.mT
    moved = torch.baddbmm(moved, passed.active, directions.weight.mT).add_(directions.bias)
    moved = moved.add_(projected) if kept is None else moved.mul_(kept).add_(projected)
    normal, stretch = _normalised(moved, passed), _mean_product(moved, passed.normal).mul_(passed.rstd)
    output = torch.addcmul(directions.shift, passed.normal, directions.scale).addcmul_(normal, layers.scale)
    output.div_(passed.length)
    growth = _dot(passed.units, output)
    return Tangent(projected, normal, stretch, growth, output.addcmul_(passed.units, growth, value=-1))


def bent(layers: LaterLayers, directions: LaterLayers, passed: Forward, back: Backward, along: Tangent,
         in_units: Tensor, kept: Tensor | None) -> Tensor:
    """Differentiate `backward`'s gradient in p along the same direction.

    Args:
        in_units: how the gradient in u changes, (H, B, D).

    Returns:
        (H, B, D).
    """
    turned = _dot(along.units, back.units).add_(_dot(passed.units, in_units))
    output = torch.addcmul(in_units, along.units, back.along, value=-1).addcmul_(passed.units, turned, value=-1)
    output.div_(passed.length).addcmul_(back.output, along.growth, value=-1)
    scaled = back.output * layers.scale  # in x
    summed = _normalised((output * layers.scale).addcmul_(back.output, directions.scale), passed)
    summed.addcmul_(back.summed, along.stretch, value=-1)
    summed.addcmul_(along.normal, _mean_product(scaled, passed.normal).mul_(passed.rstd), value=-1)
    summed.addcmul_(passed.normal, _mean_product(scaled, along.normal).mul_(passed.rstd), value=-1)
    hidden = summed if kept is None else summed * kept
    active = torch.baddbmm(hidden @ layers.weight, back.hidden, directions.weight)
    squares = passed.projected.square()
    density = torch.exp(squares * -0.5).mul_(1 / (2 * torch.pi) ** 0.5)
    curvature = density.mul_(squares.neg_().add_(2)).mul_(along.projected).mul_(back.active)  # GELU'' = phi (2 - p^2)
    return gelu_backward(active, passed.projected).add_(curvature).add_(summed)


def _normalised(values: Tensor, passed: Forward) -> Tensor:
    """The derivative of x along a change of v; as it is symmetric, also the gradient in v of one in x."""
    return layer_norm_backward(values, passed.summed, values.shape[-1:], passed.mean, passed.rstd, None, None,
                               [True, False, False])[0]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def _mean_product(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).mean(-1, keepdim=True)
