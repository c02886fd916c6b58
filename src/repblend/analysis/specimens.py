"""Specimens of a distilled set for the report: what a few pairs started as, what they became, which captions are near.

Shapes: N pairs, M captions of the real training set, D embedding width.
"""

import base64
from collections.abc import Sequence

import torch
from torch import Tensor

from repblend.matching.losses import unit
from repblend.store import JSON

NUM_NEAREST = 3
CAPTIONS_AT_ONCE = 2**16
DEFINITIONS = {
    "nearest_captions": "captions of the training set by the cosine of their text embedding with the distilled one",
}


def evenly_spaced(num_pairs: int, num_specimens: int) -> list[int]:
    """Return at most `num_specimens` indices spread over 0 .. num_pairs - 1: chosen by position, not by looks."""
    return [position * num_pairs // num_specimens for position in range(num_specimens)]


def nearest_captions(texts: Tensor, caption_features: Tensor, captions: Sequence[str]) -> list[list[JSON]]:
    """Return, for each distilled text (N, D), the nearest different captions of the training set and their cosines.

    Args:
        caption_features: (M, D) float32 or float16 embeddings of the captions; looked at a part at a time.
        captions: M texts.
    """
    directions = unit(texts)
    cosines = torch.cat([directions @ unit(part.float()).mT for part in caption_features.split(CAPTIONS_AT_ONCE)],
                        dim=1)  # (N, M)
    return [_first_different(row, captions) for row in cosines]


def _first_different(cosines: Tensor, captions: Sequence[str]) -> list[JSON]:
    """The best-scoring captions of one row; a caption that many images share is named once."""
    nearest: dict[str, float] = {}
    for index in torch.argsort(cosines, descending=True, stable=True).tolist():
        nearest.setdefault(captions[index], round(cosines[index].item(), 4))
        if len(nearest) == NUM_NEAREST:
            break
    return [{"caption": caption, "cosine": cosine} for caption, cosine in nearest.items()]


def as_base64(png: bytes) -> str:
    """Return PNG bytes as text that JSON can hold."""
    return base64.b64encode(png).decode("ascii")
