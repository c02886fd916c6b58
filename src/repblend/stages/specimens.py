"""What the report shows of single pairs of a distilled set, and of its whole similarity."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from repblend.analysis import collapse, specimens
from repblend.data.images import png_bytes
from repblend.encoders.image import ImageEncoder
from repblend.matching.synthetic_set import SyntheticSet
from repblend.store import JSON

NUM_SPECIMENS = 8


class InitialPairs(NamedTuple):
    """The real pairs that a set started from."""

    images: Tensor
    """(N, 3, H, W), normalised."""
    captions: Sequence[str]


def look_at(result: SyntheticSet, encoder: ImageEncoder, caption_features: Tensor, captions: Sequence[str],
            initial: InitialPairs | None) -> JSON:
    """Return some pairs of a set, evenly spaced, with the real captions nearest to their texts, and its similarity.

    Args:
        encoder: whose mean and standard deviation the images are normalised with.
        caption_features: (M, D_txt) embeddings of the real captions.
        captions: these M captions.
        initial: None where nobody knows.
    """
    chosen = specimens.evenly_spaced(result.num_pairs, NUM_SPECIMENS)
    nearest = specimens.nearest_captions(result.texts[chosen], caption_features, captions)

    def png(image: Tensor) -> str:
        return specimens.as_base64(png_bytes(image, encoder.mean, encoder.std))

    def before(index: int) -> JSON:
        return {} if initial is None else {"initial_png": png(initial.images[index]),
                                           "initial_caption": initial.captions[index]}

    pairs = [{"index": index, "distilled_png": png(result.images[index]), "nearest_captions": found} | before(index)
             for index, found in zip(chosen, nearest, strict=True)]
    similarity = [[round(value, 4) for value in row] for row in result.similarity.matrix().tolist()]
    return {"pairs": pairs, "similarity": similarity, "definitions": specimens.DEFINITIONS | collapse.DEFINITIONS}
