"""K-center: pairs that leave no other pair far away, by farthest-first traversal (PAPER.md section 10).

Shapes: I candidates, F features.
"""

import torch
from torch import Tensor

from repblend.coresets.joint import ROWS_AT_ONCE


def k_center(features: Tensor, num_pairs: int, first: int) -> list[int]:
    """Choose rows one by one, each the one farthest (Euclidean) from its nearest chosen row.

    Args:
        features: (I, F).
        first: the row to begin with.

    Returns:
        `num_pairs` rows in the order chosen; of equally far ones the first.

    Raises:
        ValueError: there are fewer rows than pairs.
    """
    if num_pairs > len(features):
        raise ValueError(f"k-center: expected a budget of at most {len(features)} (one pair per training image), "
                         f"found {num_pairs}")
    chosen, nearest = [first], _distances(features, first)
    nearest[first] = -1.0  # never chosen again, even among rows that are all alike
    while len(chosen) < num_pairs:
        chosen.append(int(nearest.argmax()))
        nearest = nearest.minimum(_distances(features, chosen[-1]))
        nearest[chosen[-1]] = -1.0
    return chosen


def _distances(features: Tensor, row: int) -> Tensor:
    """Euclidean distances of all rows from one, (I,)."""
    return torch.cat([(part - features[row]).norm(dim=1) for part in features.split(ROWS_AT_ONCE)])
