"""RB, representation blending (PAPER.md section 2, RB; parity/README.md section 1.1).

    h~ = lambda h + (1 - lambda) h[pi],    w~ = lambda w + (1 - lambda) w[pi]

One lambda and one permutation per inner step, the same for both modalities; on the frozen encoders' outputs, before the
heads. The target similarity is not blended, as published.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Blend:
    """How the rows of one batch are blended."""

    weight: float
    """lambda: the share of a row that stays its own."""
    permutation: Tensor
    """pi, (B,): the position in the batch of the row that is blended in."""


def draw_blend(num_rows: int, alpha: float, generator: torch.Generator) -> Blend:
    """Draw lambda ~ Beta(alpha, alpha) and a uniform permutation.

    Args:
        num_rows: B, rows of the batch.
        alpha: parameter of the Beta distribution (`alpha_2` in the released code), above 0; 1 is uniform.
    """
    # A Beta variate is a quotient of Gamma variates; torch.distributions would draw from the global generator.
    first, second = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=generator).tolist()
    return Blend(first / (first + second), torch.randperm(num_rows, generator=generator))


def blend_rows(rows: Tensor, blend: Blend | None) -> Tensor:
    """Blend the rows of (B, ...); without a blend they pass unchanged."""
    if blend is None:
        return rows
    return blend.weight * rows + (1 - blend.weight) * rows[blend.permutation]
