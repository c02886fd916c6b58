"""Random coreset: pairs drawn without replacement. Distillation starts from the same pairs at the same seed."""

import torch
from torch import Tensor

from repblend.streams import stream


def random_pairs(candidates: Tensor, num_pairs: int, seed: int) -> list[int]:
    """Draw pairs; a larger draw begins with the smaller one.

    Args:
        candidates: (I,) caption rows to choose from.

    Returns:
        `num_pairs` caption rows, in the order drawn.

    Raises:
        ValueError: there are fewer candidates than pairs.
    """
    if num_pairs > len(candidates):
        raise ValueError(f"random coreset: expected a budget of at most {len(candidates)} (one pair per training "
                         f"image), found {num_pairs}")
    order = torch.randperm(len(candidates), generator=stream(seed, "coreset", "random"))
    return candidates[order[:num_pairs]].tolist()
