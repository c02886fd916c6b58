"""The views of a dataset's images, as `params.yaml` describes them."""

from collections.abc import Iterable

from repblend.data.image_store import open_images
from repblend.data.karpathy import AnnotatedImage
from repblend.data.published_views import PublishedView, as_it_is
from repblend.data.rand_augment import RandAugment
from repblend.data.views import Augment, CropOfSquare, ViewSource
from repblend.params import Params, Views
from repblend.stages.context import Paths


def view_source(paths: Paths, params: Params, images: Iterable[AnnotatedImage]) -> ViewSource:
    """Return what makes views of the given images, numbered as they are given."""
    return ViewSource(open_images(paths.data, paths.repository), [image.image for image in images],
                      params.data.image_size, augmentation(params.encode.views, params.data.image_size), params.seed)


def augmentation(views: Views, image_size: int) -> Augment:
    """Return how views are made."""
    if views.crop == "square":
        return CropOfSquare(image_size, views.crop_scale_min, views.flip)
    operations = RandAugment(**views.rand_augment.model_dump()) if views.rand_augment else as_it_is
    return PublishedView(image_size, views.crop_scale_min, views.flip, operations)
