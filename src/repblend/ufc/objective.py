"""What a group of compensators is judged by, and its gradient; in one pass, or in chunks with bounded memory.

Chunks are exact, not approximate. The statistics couple the images of a compensator through (mean, var) alone, so a
first pass without a graph pools those of all chunks; the gradient with respect to them is then a constant of the second
pass, in which every chunk adds its share.

Shapes: K compensators, C images each (one per class).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repblend.ufc.batch_norm import MeasuredLayers, Statistics, pool


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
    layers: MeasuredLayers
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
        cross_entropy, whole = self._measure(images, compensators, labels, chunks, shares)
        leaves = {name: Statistics(*(value.detach().requires_grad_() for value in values))
                  for name, values in whole.items()}
        with torch.enable_grad():
            losses = self._losses(cross_entropy, leaves)
            pulls = torch.autograd.grad(losses.total.sum(), [value for values in leaves.values() for value in values])
        to_statistics = dict(zip(leaves, zip(pulls[::2], pulls[1::2], strict=True), strict=True))
        gradient = torch.zeros_like(compensators)
        for chunk, share in zip(chunks, shares, strict=True):
            gradient += self._share(images(chunk), compensators, labels[chunk], len(labels), share, whole,
                                    to_statistics)
        return Losses(*(loss.detach() for loss in losses)), gradient

    def _measure(self, images: Callable[[slice], Tensor], compensators: Tensor, labels: Tensor, chunks: list[slice],
                 shares: list[float]) -> tuple[Tensor, dict[str, Statistics]]:
        """First pass: cross-entropy (K,) and the statistics of the whole, without a graph."""
        cross_entropy, parts = torch.zeros(len(compensators)).to(compensators), []
        with torch.no_grad():
            for chunk in chunks:
                with self.layers.measuring(len(compensators)) as found:
                    cross_entropy += self._cross_entropy(images(chunk) + compensators, labels[chunk]).sum(1)
                parts.append(dict(found))
        return cross_entropy / len(labels), {name: pool([part[name] for part in parts], shares) for name in parts[0]}

    def _share(self, images: Tensor, compensators: Tensor, labels: Tensor, num_labels: int, share: float,
               whole: dict[str, Statistics], to_statistics: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Second pass: one chunk's part of the gradient. Its surrogate has the gradient of the whole objective."""
        leaf = compensators.detach().requires_grad_()
        with self.layers.measuring(len(images)) as found, torch.enable_grad():
            surrogate = self._cross_entropy(images + leaf, labels).sum() / num_labels
            for name, (to_mean, to_var) in to_statistics.items():
                mean, var = found[name]
                surrogate = surrogate + share * ((to_mean * mean).sum()
                                                 + (to_var * (var + (mean - whole[name].mean) ** 2)).sum())
            return torch.autograd.grad(surrogate, leaf)[0]

    def _cross_entropy(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of every image, (K, C), and let the layers measure."""
        logits = self.teacher(inputs.flatten(0, 1))
        return F.cross_entropy(logits, labels.repeat(len(inputs)), reduction="none").view(len(inputs), -1)

    def _losses(self, cross_entropy: Tensor, found: dict[str, Statistics]) -> Losses:
        bn = self.layers.loss(found, self.first_layer_weight)
        return Losses(cross_entropy, bn, cross_entropy + self.lambda_bn * bn)
