"""The images that a distillation starts from (PAPER.md section 2, Initialisation)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from repblend.data.images import normalise
from repblend.data.karpathy import AnnotatedImage
from repblend.data.views import UNLIMITED
from repblend.encoders.image import ImageEncoder
from repblend.params import DistillSettings, Params
from repblend.stages.context import Paths
from repblend.stages.views import view_source
from repblend.streams import stream


def initial_images(paths: Paths, params: Params, settings: DistillSettings, train: Sequence[AnnotatedImage],
                   rows: Sequence[int], encoder: ImageEncoder) -> Tensor:
    """Return the images of the initial pairs, (N, 3, H, H), normalised: as they are, or a view of each.

    The views are the same for all methods; those of a larger budget begin with those of a smaller one.

    Args:
        rows: N positions in the training images.
    """
    source, views = view_source(paths, params, train), _views(params.seed, settings, len(rows))
    pixels = torch.stack([source.view(row, view) for row, view in zip(rows, views, strict=True)])
    return normalise(pixels, encoder.mean, encoder.std)


def _views(seed: int, settings: DistillSettings, num: int) -> list[int]:
    if settings.initial_images == "plain":
        return [0] * num
    return torch.randint(1, UNLIMITED, (num,), generator=stream(seed, "distill", "initial views")).tolist()
