"""Networks by name: teachers and students of the unimodal pipeline.

`build` gives every one of them its own number of classes and input size; the CIFAR variants keep the module names of
the released ones, so that weights trained there load here.
"""

from collections.abc import Callable

import torch
from torch import nn


def build(name: str, num_classes: int, image_size: int, generator: torch.Generator | None = None) -> nn.Module:
    """Return a network in training mode, from normalised float32 (B, 3, image_size, image_size) to logits (B, C).

    Args:
        name: one of `NETWORKS`.
        generator: where its initial weights come from; None if weights will be loaded.

    Raises:
        ValueError: there is no such network, or the input is too small for it.
    """
    raise NotImplementedError


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {}
"""Name -> how to build it from the number of classes and the image size."""
