"""Which synthetic pairs each inner step sees (parity/README.md section 1.2)."""

import torch
from torch import Tensor


def draw_batches(num_pairs: int, num_steps: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Cut consecutive batches from random permutations of the pairs.

    When fewer than a batch remain of a permutation, the rest is dropped and a new one drawn. A batch larger than the
    set is the whole set, in a new order at every step.

    Returns:
        `num_steps` index tensors (min(batch_size, num_pairs),), int64, distinct within a batch.
    """
    size = min(batch_size, num_pairs)
    batches: list[Tensor] = []
    while len(batches) < num_steps:
        order = torch.randperm(num_pairs, generator=generator)
        batches.extend(order[: num_pairs // size * size].split(size))
    return batches[:num_steps]
