"""Pairs whose images are read when experts draw them, as `params.yaml` describes them."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from repblend.data.features import Features
from repblend.data.images import normalise
from repblend.data.karpathy import read_annotations
from repblend.data.views import UNLIMITED
from repblend.encoders.image import ImageEncoder
from repblend.experts.from_files import PairsFromFiles
from repblend.params import Experts
from repblend.stages.context import StageContext
from repblend.stages.views import view_source


def pairs_from_files(context: StageContext, experts: Experts, features: Features, encoder: ImageEncoder,
                     represent: Callable[[Tensor], Tensor]) -> PairsFromFiles:
    """Return the training set for experts that see images as they are drawn.

    Args:
        represent: from normalised pixels (B, 3, H, H) to what these experts are trained on.
    """
    params = context.params
    train = read_annotations(context.paths.data, params.data.name, params.data.max_caption_words).train
    num_views = UNLIMITED if experts.views == "fresh" else params.encode.views.num
    return PairsFromFiles(view_source(context.paths, params, train),
                          partial(normalise, mean=encoder.mean, std=encoder.std), represent, features.train_texts,
                          features.train_image_index, num_views)
