"""Representation blending (RB), and the noise that takes its place in Figure 3 (`paper/METHOD.md`, section 4).

    blending: h~ = lambda h + (1 - lambda) h[pi],    w~ = lambda w + (1 - lambda) w[pi],    lambda ~ Beta(alpha, alpha)
    noise:    h~ = h + level rms(h) e_h,             w~ = w + level rms(w) e_w,             e standard normal

h are image representations and w text embeddings of one batch, before the heads. One lambda and one permutation pi are
drawn per inner step, the same for both modalities. The target similarity is not blended, as published. The formula of
the noise is this project's definition, with the root mean square over the batch as a constant.

Shapes: B rows of a batch, D_img and D_txt their widths.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Blend:
    """How the rows of one batch are blended."""

    weight: float
    """lambda, 0 to 1: the share of a row that stays its own."""
    permutation: Tensor
    """pi, (B,) int64: the position in the batch of the row that is blended in."""

    def apply(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Blend image representations (B, D_img) and text embeddings (B, D_txt)."""
        return self.mixed(images), self.mixed(texts)

    def to(self, device: torch.device | str) -> "Blend":
        return Blend(self.weight, self.permutation.to(device))

    def mixed(self, rows: Tensor) -> Tensor:
        """Blend rows (B, ...) of anything."""
        return self.weight * rows + (1 - self.weight) * rows[self.permutation]


def draw_blend(num_rows: int, generator: torch.Generator, alpha: float) -> Blend:
    """Draw lambda and a uniform permutation of B rows.

    Args:
        alpha: parameter of the Beta distribution (`alpha_2` in the released code), above 0; 1 is uniform.
    """
    # A Beta variate is a quotient of Gamma variates; torch.distributions would draw from the global generator.
    first, second = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=generator).tolist()
    return Blend(first / (first + second), torch.randperm(num_rows, generator=generator))


@dataclass(frozen=True)
class Noise:
    """Gaussian noise for the rows of one batch."""

    level: float
    """Standard deviation, in units of the representations' root mean square."""
    images: Tensor
    """(B, D_img) standard normal."""
    texts: Tensor
    """(B, D_txt) standard normal."""

    def apply(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        return self._add(images, self.images), self._add(texts, self.texts)

    def to(self, device: torch.device | str) -> "Noise":
        return Noise(self.level, self.images.to(device), self.texts.to(device))

    def _add(self, rows: Tensor, normal: Tensor) -> Tensor:
        return rows + self.level * rows.detach().square().mean().sqrt() * normal


def draw_noise(num_rows: int, generator: torch.Generator, level: float, image_width: int, text_width: int) -> Noise:
    """Draw noise for B rows of widths D_img and D_txt."""
    return Noise(level, torch.randn(num_rows, image_width, generator=generator),
                 torch.randn(num_rows, text_width, generator=generator))


Perturbation = Blend | Noise
"""The draws of one inner step."""
DrawPerturbation = Callable[[int, torch.Generator], Perturbation]
"""(rows of the batch, generator) -> the draws of one inner step."""
