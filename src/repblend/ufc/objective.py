"""What a group of compensators is judged by, and its gradient; in one pass, or in chunks with bounded memory.

Cross-entropy plus the BatchNorm-statistics loss: how far a batch's statistics are from those that a teacher saw in
training. For the inputs of BN layer l, with mean and biased variance over batch and space (INFER, arXiv 2408.06927;
`paper/METHOD.md`, section 12),

    BN = sum over l of  g_l * ( || var_l - running_var_l ||_2 + || mean_l - running_mean_l ||_2 )

with g = 10 for the first layer and 1 for the others. A teacher in evaluation mode treats images one by one, so a batch
may hold several groups of images (one per compensator) whose statistics are taken apart.

Chunks are exact, not approximate. The statistics couple the images of a compensator through (mean, var) alone, so a
first pass without a graph pools those of all chunks; the gradient with respect to them is then a constant of the second
pass, in which every chunk adds its share.

Shapes: K compensators (groups), C images each (one per class), F channels of a layer, N values of a channel in a group.
"""

import contextlib
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Losses(NamedTuple):
    """Of every compensator, (K,)."""

    cross_entropy: Tensor
    """Mean over the C images."""
    bn: Tensor
    """Before its weight."""
    total: Tensor


@dataclass(frozen=True)
class Objective:
    """Cross-entropy plus the weighted BatchNorm loss of one teacher."""

    teacher: nn.Module
    """In evaluation mode, without gradients."""
    layers: "MeasuredLayers"
    lambda_bn: float
    first_layer_weight: float

    def gradient(self, images: Tensor, compensators: Tensor, labels: Tensor) -> tuple[Losses, Tensor]:
        """Return the losses and the gradient of their sum with respect to the transformed compensators.

        Args:
            images: (K, C, 3, H, W), transformed.
            compensators: (K, 1, 3, H, W), transformed; no graph is needed.
            labels: (C,) int64.

        Returns:
            The losses, and a gradient of the compensators' shape.
        """
        compensators = compensators.detach().requires_grad_()
        with self.layers.measuring(len(images)) as found, torch.enable_grad():
            cross_entropy = self._cross_entropy(images + compensators, labels).sum(1) / len(labels)
            losses = self._losses(cross_entropy, found)
            gradient, = torch.autograd.grad(losses.total.sum(), compensators)
        return Losses(*(loss.detach() for loss in losses)), gradient

    def gradient_in_chunks(self, images: Callable[[slice], Tensor], compensators: Tensor, labels: Tensor,
                           classes_at_once: int) -> tuple[Losses, Tensor]:
        """Return the same as `gradient`, with a graph of `classes_at_once` images per compensator at a time.

        Args:
            images: returns the transformed images of a slice of the classes, (K, C', 3, H, W); called twice for each.
        """
        chunks = [slice(start, start + classes_at_once) for start in range(0, len(labels), classes_at_once)]
        shares = [len(labels[chunk]) / len(labels) for chunk in chunks]
        total, parts = torch.zeros(len(compensators)).to(compensators), []
        with torch.no_grad():  # the first pass: cross-entropy and the statistics of the whole
            for chunk in chunks:
                with self.layers.measuring(len(compensators)) as found:
                    total += self._cross_entropy(images(chunk) + compensators, labels[chunk]).sum(1)
                parts.append(dict(found))
        whole = {name: pool([part[name] for part in parts], shares) for name in parts[0]}
        leaves = {name: Statistics(*(value.detach().requires_grad_() for value in values))
                  for name, values in whole.items()}
        with torch.enable_grad():
            losses = self._losses(total / len(labels), leaves)
            pulls = torch.autograd.grad(losses.total.sum(), [value for values in leaves.values() for value in values])
        to_statistics = dict(zip(leaves, zip(pulls[::2], pulls[1::2], strict=True), strict=True))
        gradient = torch.zeros_like(compensators)
        for chunk, share in zip(chunks, shares, strict=True):  # the second: a surrogate with a chunk's gradient
            seen, leaf = images(chunk), compensators.detach().requires_grad_()
            with self.layers.measuring(len(seen)) as found, torch.enable_grad():
                surrogate = self._cross_entropy(seen + leaf, labels[chunk]).sum() / len(labels)
                for name, (to_mean, to_var) in to_statistics.items():
                    mean, var = found[name]
                    surrogate = surrogate + share * ((to_mean * mean).sum()
                                                     + (to_var * (var + (mean - whole[name].mean) ** 2)).sum())
                gradient += torch.autograd.grad(surrogate, leaf)[0]
        return Losses(*(loss.detach() for loss in losses)), gradient

    def _cross_entropy(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of every image, (K, C), and let the layers measure."""
        logits = self.teacher(inputs.flatten(0, 1))
        return F.cross_entropy(logits, labels.repeat(len(inputs)), reduction="none").view(len(inputs), -1)

    def _losses(self, cross_entropy: Tensor, found: dict[str, "Statistics"]) -> Losses:
        bn = self.layers.loss(found, self.first_layer_weight)
        return Losses(cross_entropy, bn, cross_entropy + self.lambda_bn * bn)


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
        layers: dict[str, Any] = {  # torch's types let statistics be None, which those of teachers are not
            name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
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
                layer.forward = partial(_measure, layer, name, found, num_groups)
            yield found
        finally:
            for layer in self.layers.values():
                layer.__dict__.pop("forward", None)

    def terms(self, found: dict[str, Statistics], first_layer_weight: float) -> list[Tensor]:
        """Return every layer's weighted term of the loss, of every group, (K,); raises `ValueError` if a layer never
        ran, so it has no statistics.
        """
        for number, name in enumerate(self.layers):
            if name not in found:
                raise ValueError(f"BatchNorm layer {name} (number {number} of those measured) never runs; name it in "
                                 "generation.skipped_layers")
        distances = [torch.linalg.vector_norm(found[name].var - layer.running_var, dim=1)
                     + torch.linalg.vector_norm(found[name].mean - layer.running_mean, dim=1)
                     for name, layer in self.layers.items()]
        return [first_layer_weight * distances[0], *distances[1:]]

    def loss(self, found: dict[str, Statistics], first_layer_weight: float) -> Tensor:
        """Return the loss of every group, (K,); raises as `terms`."""
        first, *others = self.terms(found, first_layer_weight)
        return first + sum(others)


def pool(parts: Sequence[Statistics], shares: Sequence[float]) -> Statistics:
    """Return the statistics of a whole from those of its parts and their shares of it (which sum to 1)."""
    mean = reduce(operator.add, (share * part.mean for part, share in zip(parts, shares, strict=True)))
    return Statistics(mean, reduce(operator.add, (share * (part.var + (part.mean - mean) ** 2)
                                                  for part, share in zip(parts, shares, strict=True))))


def _measure(layer: Any, name: str, found: dict[str, Statistics], num_groups: int, inputs: Tensor) -> Tensor:
    scale = layer.weight * torch.rsqrt(layer.running_var + layer.eps)
    outputs, mean, var = _NormaliseAndMeasure.apply(inputs, scale, layer.bias - layer.running_mean * scale, num_groups)
    found[name] = Statistics(mean, var)
    return outputs


class _NormaliseAndMeasure(torch.autograd.Function):
    """x (K*C, F, H, W) -> x * scale + shift, mean (K, F) and var (K, F); differentiable in x alone.

    Measuring costs little more than the layer itself: normalising and measuring are one operation, whose backward pass
    adds the gradient of the statistics, affine in the input, to that of the layer. The variance is E[x^2] - E[x]^2: one
    pass less than from the centred values, and as good for statistics that are compared with running ones (a test holds
    it against float64).
    """

    @staticmethod
    def forward(ctx, inputs: Tensor, scale: Tensor, shift: Tensor, num_groups: int) -> tuple[Tensor, Tensor, Tensor]:
        groups = inputs.reshape(num_groups, -1, *inputs.shape[1:])
        per_image = groups.flatten(3)  # (K, C, F, H * W); over pixels first, since they lie together: twice as fast
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
        slope, offset = (values[:, None, :, None, None] for values in (slope, to_mean / ctx.num_values - slope * mean))
        groups = inputs.reshape(len(mean), -1, *inputs.shape[1:])  # (K, C, F, H, W)
        gradient = torch.addcmul(offset, groups, slope)
        gradient.addcmul_(to_outputs.reshape(groups.shape), scale.view(-1, 1, 1))
        return gradient.reshape(inputs.shape), None, None, None
