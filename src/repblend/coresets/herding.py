"""Herding: pairs whose features add up to the mean of all (PAPER.md section 10).

Shapes: I candidates, F features.
"""

import torch
from torch import Tensor

from repblend.coresets.joint import ROWS_AT_ONCE


def herding(features: Tensor, num_pairs: int) -> list[int]:
    """Choose rows one by one, each the one that brings the chosen rows' sum nearest to its share of the mean.

    After t rows with sum s, the next minimises | (t + 1) mean - s - x | over the rows x not chosen yet.

    Args:
        features: (I, F).

    Returns:
        `num_pairs` different rows in the order chosen; of equally near ones the first.

    Raises:
        ValueError: there are fewer rows than pairs.
    """
    if num_pairs > len(features):
        raise ValueError(f"herding: expected a budget of at most {len(features)} (one pair per training image), "
                         f"found {num_pairs}")
    mean, total, chosen = features.mean(dim=0), torch.zeros_like(features[0]), []
    for count in range(1, num_pairs + 1):
        distances = torch.cat([(count * mean - total - part).norm(dim=1) for part in features.split(ROWS_AT_ONCE)])
        distances[chosen] = torch.inf
        chosen.append(int(distances.argmin()))
        total = total + features[chosen[-1]]
    return chosen
