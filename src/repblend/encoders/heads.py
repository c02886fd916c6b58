"""Projection heads P_v and P_t (paper/METHOD.md, section 1).

    p = W1 x + b1;   z = W2 GELU(p) + b2;   h(x) = LayerNorm(z + p)

A head is one flat vector of parameters and a function of it, because the method adds, subtracts and measures whole
parameter vectors. Flat order, as published: W1, b1, W2, b2, LayerNorm weight, LayerNorm bias, each row-major.

While heads are trained, dropout may act on z (the released code drops a tenth). What it keeps is drawn outside and
given to the head, so that an inner step can be differentiated with the very draws it was taken with.

Shapes: B rows, D_in features in, D features out and hidden, P parameters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class HeadSpec:
    """Sizes of a projection head."""

    d_in: int
    """Features that come in."""
    d: int
    """Hidden width and features that go out."""
    dropout: float = 0.0
    """Share of the hidden units that training drops; 0.1 in the released code."""

    @property
    def sizes(self) -> list[int]:
        """Elements of W1, b1, W2, b2, LayerNorm weight, LayerNorm bias."""
        return [self.d * self.d_in, self.d, self.d * self.d, self.d, self.d, self.d]

    @property
    def num_parameters(self) -> int:
        """P."""
        return sum(self.sizes)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter in flat order, by its name in the released code."""
        return {"projection.weight": (self.d, self.d_in), "projection.bias": (self.d,), "fc.weight": (self.d, self.d),
                "fc.bias": (self.d,), "layer_norm.weight": (self.d,), "layer_norm.bias": (self.d,)}

    def flatten(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the flat vector (P,) of tensors of these shapes."""
        return torch.cat([value.flatten() for value in tensors])

    def unflatten(self, flat: Tensor) -> list[Tensor]:
        """Return the tensors of a flat vector (P,), as views of it."""
        return [part.view(shape) for part, shape in zip(flat.split(self.sizes), self.shapes.values(), strict=True)]


def apply_head(x: Tensor, flat: Tensor, spec: HeadSpec, kept: Tensor | None = None) -> Tensor:
    """Apply a projection head; not normalised to unit length.

    Args:
        x: (B, D_in), image features or text embeddings.
        flat: (P,) parameters, `spec.num_parameters` of them.
        kept: (B, D) bool, the units of z that dropout keeps (`draw_kept`); without it all are, as outside of training.

    Returns:
        (B, D). Differentiable twice in both arguments; works under `torch.func.vmap`.
    """
    w1, b1, w2, b2, scale, shift = flat.split(spec.sizes)
    projected = F.linear(x, w1.view(spec.d, spec.d_in), b1)  # (B, D)
    hidden = F.linear(F.gelu(projected), w2.view(spec.d, spec.d), b2)  # (B, D); exact (erf) GELU
    if kept is not None:
        hidden = hidden * kept / (1 - spec.dropout)  # drawn outside: a second pass can be given the same draws
    return F.layer_norm(hidden + projected, (spec.d,), scale, shift, LAYER_NORM_EPSILON)


def draw_kept(num_rows: int, spec: HeadSpec, generator: torch.Generator) -> Tensor | None:
    """Draw which hidden units dropout keeps, (B, D) bool on the CPU; None for a head without dropout."""
    if spec.dropout == 0:
        return None
    return torch.rand(num_rows, spec.d, generator=generator) >= spec.dropout


def init_head(spec: HeadSpec, generator: torch.Generator) -> Tensor:
    """Draw initial parameters: PyTorch's defaults for linear layers and LayerNorm, as published.

    Returns:
        (P,) float32, on the CPU.
    """

    def uniform(size: int, fan_in: int) -> Tensor:
        bound = 1 / math.sqrt(fan_in)
        return torch.empty(size).uniform_(-bound, bound, generator=generator)

    w1, b1, w2, b2, _, _ = spec.sizes
    return torch.cat([
        uniform(w1, spec.d_in), uniform(b1, spec.d_in), uniform(w2, spec.d), uniform(b2, spec.d),
        torch.ones(spec.d), torch.zeros(spec.d),
    ])
