"""Dropout in the matched heads, and whether TESLA's two passes see the same one (PAPER.md section 2, Inner loop).

The matching loss belongs to the heads that the student's run really had. The data gradient is that of the loss only if
the second pass, which differentiates each step once more, has the first pass's draws. The released code draws anew: its
gradient is of other functions than those whose gradients were summed.

Shapes: B pairs of a batch.
"""

from collections.abc import Callable

import torch

from repblend.matching.step import NO_DROPOUT, Masks

DrawMasks = Callable[[int, torch.Generator], Masks]
"""(B, generator) -> the draws of one training step, as of `Towers.draw_masks`."""
StepMasks = Callable[[int, torch.Generator, torch.Generator], tuple[Masks, Masks]]
"""(B, generator of the first pass, of the second) -> the draws of an inner step in both passes."""


def no_masks(num_rows: int, first: torch.Generator, second: torch.Generator) -> tuple[Masks, Masks]:
    """Drop nothing."""
    return NO_DROPOUT, NO_DROPOUT


def same_masks(draw: DrawMasks) -> StepMasks:
    """Give both passes the same draws: the gradient is that of the matching loss (with constant inner parameters)."""

    def both(num_rows: int, first: torch.Generator, second: torch.Generator) -> tuple[Masks, Masks]:
        masks = draw(num_rows, first)
        return masks, masks

    return both


def different_masks(draw: DrawMasks) -> StepMasks:
    """Give each pass draws of its own, as released."""
    return lambda num_rows, first, second: (draw(num_rows, first), draw(num_rows, second))


DROPOUT_MASKS = {"same": same_masks, "different": different_masks}
"""How the masks of both passes belong together, by its name in `params.yaml`."""
