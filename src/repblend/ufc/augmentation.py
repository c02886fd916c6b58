"""What training sees of an image: a random crop after padding, a random flip, and, for students, mixup.

All draws are on the CPU from named streams; the work is done where the images are, for a whole batch at once.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Views(NamedTuple):
    """How every image of a batch is seen."""

    top: Tensor
    """(B,) int64, from 0 to twice the padding."""
    left: Tensor
    flipped: Tensor
    """(B,) bool."""


class Mix(NamedTuple):
    """Mixup: every image, and its label, becomes `share` of itself and the rest of a partner."""

    share: float
    partners: Tensor
    """(B,) int64."""

    def __call__(self, values: Tensor) -> Tensor:
        """Mix images (B, 3, H, W) or logits (B, C)."""
        return self.share * values + (1 - self.share) * values[self.partners.to(values.device)]


def draw_views(num_images: int, crop_padding: int, flip: float, generator: torch.Generator) -> Views:
    """Draw crops and flips."""
    offsets = torch.randint(2 * crop_padding + 1, (2, num_images), generator=generator)
    return Views(offsets[0], offsets[1], torch.rand(num_images, generator=generator) < flip)


def see(images: Tensor, views: Views, crop_padding: int) -> Tensor:
    """Return images (B, 3, H, W) of any type as they are drawn to be seen; what lies outside of an image is black."""
    batch, _, height, width = images.shape
    device = images.device
    columns = torch.arange(width, device=device)
    columns = torch.where(views.flipped.to(device)[:, None], width - 1 - columns, columns)  # (B, W)
    rows = views.top.to(device)[:, None] + torch.arange(height, device=device)  # (B, H)
    columns = views.left.to(device)[:, None] + columns
    padded = F.pad(images, [crop_padding] * 4)
    index = torch.arange(batch, device=device)
    return padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def draw_mix(num_images: int, alpha: float, generator: torch.Generator) -> Mix:
    """Draw one share from Beta(alpha, alpha) for the batch, and a partner of every image."""
    share = _draw_beta(alpha, generator)
    return Mix(share, torch.randperm(num_images, generator=generator))


def _draw_beta(alpha: float, generator: torch.Generator) -> float:
    """Draw from Beta(alpha, alpha), as the share of one of two gamma variables in their sum."""
    concentrations = torch.full((2,), alpha, dtype=torch.float64)
    gammas = torch._standard_gamma(concentrations, generator=generator)
    return float(gammas[0] / gammas.sum())
