"""What a coreset chooses from: one pair per image.

The paper samples pairs, so one image may come twice with other captions. Here an image comes once, with one of its
captions drawn at random (this project's definition): a budget of N pairs then always shows N different images, and
every method starts from the same candidates.
"""

import torch
from torch import Tensor

from repblend.streams import stream


def candidate_pairs(image_index: Tensor, seed: int) -> Tensor:
    """Draw one caption row for every image.

    Args:
        image_index: (M,) int64, the image that each caption row belongs to; images are numbered 0 .. I - 1.

    Returns:
        (I,) int64 caption rows, in the order of the images.
    """
    order = torch.randperm(len(image_index), generator=stream(seed, "coreset", "captions"))
    num_images = int(image_index.max()) + 1
    place = torch.empty(len(image_index), dtype=torch.long)
    place[order] = torch.arange(len(image_index))  # an image's caption is the one with the first place
    first = torch.full((num_images,), len(image_index)).scatter_reduce(0, image_index, place, "amin")
    return order[first]


def all_pairs(image_index: Tensor, seed: int) -> Tensor:
    """Return every caption row, (M,): an image may come more than once."""
    return torch.arange(len(image_index))


INITIAL_CANDIDATES = {"one-per-image": candidate_pairs, "any": all_pairs}
"""Which pairs a distillation may start from, by its name in `params.yaml`."""
