"""The BatchNorm-statistics loss: how far a batch's statistics are from those that a teacher saw in training.

For the inputs of BN layer l, with mean and biased variance over batch and space (INFER, as released):

    BN = sum over l of  g_l * ( || var_l - running_var_l ||_2 + || mean_l - running_mean_l ||_2 )

g is 10 for the first layer and 1 for the others. A teacher in evaluation mode treats images one by one, so a batch may
hold several groups of images (one per compensator) whose statistics are taken apart.

Measuring costs little more than the layer itself: normalising and measuring are one operation, whose backward pass adds
the gradient of the statistics, affine in the input, to that of the layer.

Shapes: K groups, B images per group, F channels, N values of a channel within a group.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Statistics(NamedTuple):
    """What one layer received."""

    mean: Tensor
    """(K, F)"""
    var: Tensor
    """(K, F), biased."""


class MeasuredLayers:
    """BatchNorm layers of a teacher whose inputs are measured."""

    def __init__(self, network: nn.Module, skipped: Sequence[int] = ()) -> None:
        """Choose the layers.

        Args:
            network: in evaluation mode.
            skipped: layers to leave out, counted from 0 in the order of the network's modules.

        Raises:
            ValueError: a skipped layer does not exist, or no layer is left.
        """
        layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
        if unknown := [number for number in skipped if number >= len(layers)]:
            raise ValueError(f"skipped_layers: {unknown} of {len(layers)} BatchNorm layers, counted from 0; lower it")
        self.layers = {name: layer for number, (name, layer) in enumerate(layers.items()) if number not in skipped}
        if not self.layers:
            raise ValueError("the network has no BatchNorm layer to match; take another architecture, or skip fewer")

    @contextlib.contextmanager
    def measuring(self, num_groups: int) -> Iterator[dict[str, Statistics]]:
        """Measure what passes through the network within the body.

        Args:
            num_groups: K; the network's batch holds K groups of the same size, one after the other.

        Yields:
            A mapping that every forward pass fills anew: layer name -> statistics.
        """
        found: dict[str, Statistics] = {}
        try:
            for name, layer in self.layers.items():
                layer.forward = _measuring_forward(layer, name, found, num_groups)
            yield found
        finally:
            for layer in self.layers.values():
                layer.__dict__.pop("forward", None)

    def loss(self, found: dict[str, Statistics], first_layer_weight: float) -> Tensor:
        """Return the loss of every group, (K,).

        Raises:
            ValueError: a layer never ran, so it has no statistics.
        """
        if missing := [name for name in self.layers if name not in found]:
            number = list(self.layers).index(missing[0])
            raise ValueError(f"BatchNorm layer {missing[0]} (number {number} of those measured) never runs; name it in "
                             "generation.skipped_layers")
        distances = [_distance(layer, found[name]) for name, layer in self.layers.items()]
        return first_layer_weight * distances[0] + sum(distances[1:])


def _distance(layer: nn.BatchNorm2d, found: Statistics) -> Tensor:
    return (torch.linalg.vector_norm(found.var - layer.running_var, dim=1)
            + torch.linalg.vector_norm(found.mean - layer.running_mean, dim=1))


def pool(parts: Sequence[Statistics], shares: Sequence[float]) -> Statistics:
    """Return the statistics of a whole from those of its parts and their shares of it (which sum to 1)."""
    mean = sum(share * part.mean for part, share in zip(parts, shares, strict=True))
    return Statistics(mean, sum(share * (part.var + (part.mean - mean) ** 2)
                                for part, share in zip(parts, shares, strict=True)))


def _measuring_forward(layer: nn.BatchNorm2d, name: str, found: dict[str, Statistics], num_groups: int):
    def forward(inputs: Tensor) -> Tensor:
        scale = layer.weight * torch.rsqrt(layer.running_var + layer.eps)
        shift = layer.bias - layer.running_mean * scale
        outputs, mean, var = _NormaliseAndMeasure.apply(inputs, scale, shift, num_groups)
        found[name] = Statistics(mean, var)
        return outputs
    return forward


class _NormaliseAndMeasure(torch.autograd.Function):
    """x (K*B, F, H, W) -> x * scale + shift, mean (K, F) and var (K, F); differentiable in x alone.

    The variance is E[x^2] - E[x]^2: one pass less than from the centred values, and as good for statistics that are
    compared with running ones (a test holds it against float64).
    """

    @staticmethod
    def forward(ctx, inputs: Tensor, scale: Tensor, shift: Tensor, num_groups: int) -> tuple[Tensor, Tensor, Tensor]:
        groups = inputs.reshape(num_groups, -1, *inputs.shape[1:])
        per_image = groups.flatten(3)  # (K, B, F, H * W); over pixels first, since they lie together: twice as fast
        num_values = per_image[:, :, 0].numel() // num_groups
        mean = per_image.mean(3).mean(1)
        squares = torch.linalg.vector_norm(per_image, dim=3).square().sum(1)
        var = (squares / num_values - mean.square()).clamp(min=0)
        ctx.save_for_backward(inputs, scale, mean)
        ctx.num_values = num_values
        return torch.addcmul(shift.view(-1, 1, 1), inputs, scale.view(-1, 1, 1)), mean, var

    @staticmethod
    def backward(ctx, to_outputs: Tensor, to_mean: Tensor, to_var: Tensor) -> tuple[Tensor, None, None, None]:
        inputs, scale, mean = ctx.saved_tensors
        slope = 2 * to_var / ctx.num_values
        offset = to_mean / ctx.num_values - slope * mean
        groups = inputs.reshape(len(mean), -1, *inputs.shape[1:])  # (K, B, F, H, W)
        gradient = torch.addcmul(_per_channel(offset), groups, _per_channel(slope))
        gradient.addcmul_(to_outputs.reshape(groups.shape), scale.view(-1, 1, 1))
        return gradient.reshape(inputs.shape), None, None, None


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, :, None, None]  # (K, F) -> (K, 1, F, 1, 1)
