"""Encode once per iteration (DESIGN section 6): features of the drawn images once, one pull-back to their pixels.

With a frozen encoder every inner step and all second-order terms live in the heads. They need the features of each
distinct image only once, and leave one gradient per feature, which a single vector-Jacobian product carries back to
the pixels. Exact: the sum over steps of products with one Jacobian is the product with the sum.

Shapes: N images of the set, U distinct drawn, D features.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Encode = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) -> features (B, D), differentiable once."""


class EncodeOnce(Protocol):
    """The images of one iteration, as students see them."""

    def features(self) -> Tensor:
        """Return what students see, a row per image of the set."""
        ...

    def pull_back(self, feature_gradient: Tensor) -> Tensor:
        """Carry a gradient of it back to the pixels, (N, 3, H, W)."""
        ...


class Pixels:
    """Images as they are: the students' own encoder looks at them, so nothing can be encoded once."""

    def __init__(self, images: Tensor, drawn: Tensor) -> None:
        self._images = images

    def features(self) -> Tensor:
        return self._images

    def pull_back(self, feature_gradient: Tensor) -> Tensor:
        return feature_gradient


class KeptGraph:
    """Features of the drawn images whose encoder graph is kept until the pull-back: one forward, one backward."""

    def __init__(self, images: Tensor, drawn: Tensor, encode: Encode, chunk: int) -> None:
        """Encode the drawn images.

        Args:
            images: (N, 3, H, W).
            drawn: (U,) distinct indices into the images.
            encode: the frozen encoder.
            chunk: images that pass through the encoder at once.
        """
        self._images, self._drawn = images, drawn
        self._leaves = [images[part].detach().requires_grad_() for part in drawn.split(chunk)]
        self._encoded = [encode(leaf) for leaf in self._leaves]

    def features(self) -> Tensor:
        """Return (N, D) features without a graph; rows of images that were not drawn are zero."""
        return _scatter(torch.cat([part.detach() for part in self._encoded]), self._drawn, len(self._images))

    def pull_back(self, feature_gradient: Tensor) -> Tensor:
        """Carry a gradient (N, D) of the features back to the pixels, (N, 3, H, W). Frees the graph: call it once."""
        parts = feature_gradient[self._drawn].split([len(leaf) for leaf in self._leaves])
        pixels = [torch.autograd.grad(encoded, leaf, part)[0]
                  for encoded, leaf, part in zip(self._encoded, self._leaves, parts, strict=True)]
        self._encoded = []
        return _scatter(torch.cat(pixels), self._drawn, len(self._images))


class Recomputed:
    """As `KeptGraph`, but each chunk is encoded again for its pull-back: a third more time, one chunk of memory."""

    def __init__(self, images: Tensor, drawn: Tensor, encode: Encode, chunk: int) -> None:
        self._images, self._drawn, self._encode, self._chunk = images, drawn, encode, chunk

    def features(self) -> Tensor:
        with torch.no_grad():
            parts = [self._encode(self._images[part]) for part in self._drawn.split(self._chunk)]
        return _scatter(torch.cat(parts), self._drawn, len(self._images))

    def pull_back(self, feature_gradient: Tensor) -> Tensor:
        pixels = [KeptGraph(self._images, part, self._encode, self._chunk).pull_back(feature_gradient)[part]
                  for part in self._drawn.split(self._chunk)]
        return _scatter(torch.cat(pixels), self._drawn, len(self._images))


def _scatter(rows: Tensor, indices: Tensor, num_rows: int) -> Tensor:
    return rows.new_zeros(num_rows, *rows.shape[1:]).index_copy_(0, indices, rows)


ENCODER_GRAPHS = {"keep": KeptGraph, "recompute": Recomputed}
"""What happens to the encoder's graph between encoding and pull-back, by its name in `params.yaml`."""
