"""Accuracy, and logits of many images in batches."""

import torch
from torch import Tensor, nn

from repblend.ufc.data import Normalisation


@torch.no_grad()
def logits(network: nn.Module, images: Tensor, normalisation: Normalisation, batch_size: int = 500,
           device: str = "cpu") -> Tensor:
    """Return a network's logits, (N, C) float32 on the CPU, in evaluation mode; its mode is left as it was.

    Args:
        images: (N, 3, H, W) uint8, or floats between 0 and 1.
    """
    training = network.training
    network.eval()
    parts = [network(normalisation.normalise(part.to(device))).cpu() for part in images.split(batch_size)]
    network.train(training)
    return torch.cat(parts)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor, normalisation: Normalisation, batch_size: int = 500,
             device: str = "cpu") -> float:
    """Return the share of images (N, 3, H, W) whose highest logit is their class's, in percent; ties go to the first.

    Raises:
        ValueError: a logit is NaN.
    """
    found = logits(network, images, normalisation, batch_size, device)
    if found.isnan().any():
        raise ValueError("a network's logits hold NaN: its training diverged; lower the learning rate")
    return 100 * (found.argmax(1) == labels).double().mean().item()
