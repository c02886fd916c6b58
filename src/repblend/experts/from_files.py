"""The real training set with images that are read and augmented when they are drawn (DESIGN section 6, `fresh` views).

What the published expert training does: no two draws of an image look the same. With as many views as are encoded once,
a draw shows the very view that the cache has the features of.

Shapes: B pairs of a batch, M pairs (captions), H height and width.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from repblend.data.features import widened
from repblend.data.prefetch import prefetched
from repblend.data.views import ViewSource
from repblend.experts.training import ExpertBatch


@dataclass(frozen=True)
class PairsFromFiles:
    """Pairs whose images are read ahead by threads while a batch is trained on, a few batches at most."""

    source: ViewSource
    normalise: Callable[[Tensor], Tensor]
    """From pixels (B, 3, H, H) in [0, 1] to what the image encoder expects; called by the reading threads."""
    represent: Callable[[Tensor], Tensor]
    """From that to what is trained on: frozen features (B, D_img), or the pixels themselves."""
    texts: Tensor
    """(M, D_txt) float32 or float16, one row per caption."""
    image_index: Tensor
    """(M,) int64: which image a caption belongs to."""
    num_views: int
    """Views that draws choose from; `repblend.data.views.UNLIMITED` for ever new ones."""
    workers: int | None = None
    """Reading threads; by default one per processor. Changes no result."""

    def batches(self, draws: Iterable[ExpertBatch]) -> Iterator[tuple[ExpertBatch, Tensor, Tensor]]:
        """As `TrainingPairs.batches`.

        Raises:
            ValueError: an image cannot be read; the message names it.
        """
        for draw, pixels in prefetched(self._read, draws, self.workers):
            texts = widened(self.texts[draw.pairs]) if draw.texts is None else draw.texts
            yield draw, self.represent(pixels), texts

    def _read(self, draw: ExpertBatch) -> Tensor:
        images = self.image_index[draw.pairs].tolist()
        shown = [self.source.view(image, view) for image, view in zip(images, draw.views.tolist(), strict=True)]
        return self.normalise(torch.stack(shown))
