"""What stages read and build first: annotations, images and their views, the frozen image encoder, imported files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from repblend.data.image_store import open_images
from repblend.data.images import normalise, read_images
from repblend.data.karpathy import AnnotatedImage, Annotations, read_annotations
from repblend.data.rand_augment import RandomOperations
from repblend.data.views import Augment, CropOfSquare, PublishedView, ViewSource, as_it_is
from repblend.encoders.image import ImageEncoder
from repblend.encoders.registry import load_image_encoder, load_text_encoder
from repblend.encoders.text import CaptionEncoder
from repblend.params import Params
from repblend.params.experts import ImportFrom
from repblend.progress import progress
from repblend.records.base import Imported
from repblend.runtime.context import Paths, Workspace
from repblend.store import fingerprint, sha256


def annotations_of(params: Params, paths: Paths) -> Annotations:
    """Read the prepared annotations of every split; raises `ValueError` as `read_annotations`."""
    return read_annotations(paths.data, params.data.name, params.data.max_caption_words)


def captions_in(images: Iterable[AnnotatedImage]) -> list[str]:
    """Return the captions of images one after the other: the order of their features."""
    return [caption for image in images for caption in image.captions]


def image_encoder_of(params: Params, name: str | None = None, image_size: int | None = None) -> ImageEncoder:
    """Load a frozen image encoder, that of the pipeline if none is named; raises as `load_image_encoder`."""
    encoder = load_image_encoder(name or params.encode.image_encoder, image_size or params.data.image_size)
    return encoder.to(params.compute.device, params.compute.arithmetic == "bf16", params.compute.compile)


def text_encoder_of(params: Params) -> CaptionEncoder:
    """Load the frozen text encoder of the pipeline; raises as `load_text_encoder`."""
    encoder = load_text_encoder(params.encode.text_encoder)
    return encoder.to(params.compute.device, params.compute.arithmetic == "bf16")


def read_pixels(paths: Paths, images: Iterable[AnnotatedImage], image_size: int, mean: Tensor, std: Tensor) -> Tensor:
    """Read images (N, 3, H, W), normalised with an encoder's mean and standard deviation per channel."""
    store = open_images(paths.data, paths.repository)
    return normalise(read_images(store, [image.image for image in images], image_size), mean, std)


def view_source(params: Params, paths: Paths, images: Iterable[AnnotatedImage]) -> ViewSource:
    """Return what makes views of the given images, numbered as they are given."""
    views, size = params.encode.views, params.data.image_size
    augment: Augment = CropOfSquare(size, views.crop_scale_min, views.flip)
    if views.crop == "published":
        operations = RandomOperations(**views.rand_augment.model_dump()) if views.rand_augment else as_it_is
        augment = PublishedView(size, views.crop_scale_min, views.flip, operations)
    return ViewSource(open_images(paths.data, paths.repository), [image.image for image in images], size, augment,
                      params.seed)


# Files of the official release that a stage imports: where they are, and whether they are what the parameters say.


def located(source: ImportFrom, workspace: Workspace) -> Path:
    """Return the folder or file that `path` names: relative to the repository, or absolute."""
    return workspace.repository / source.path


def identify(setting: str, source: ImportFrom, files: Sequence[Path]) -> Imported:
    """Return the SHA-256 of each imported file by its name, and the one of all.

    One file's is its own. That of several is the one of the JSON of their names and hashes, so neither the folder nor
    the machine matters.

    Args:
        setting: the parameter that holds `source`, for messages.

    Raises:
        ValueError: the parameter gives no SHA-256, or another one.
    """
    hashes = {path.name: sha256(path) for path in progress(files, "check", "file")}
    whole = next(iter(hashes.values())) if len(hashes) == 1 else fingerprint(hashes)
    if source.sha256 is None:
        raise ValueError(f"{setting}.sha256: not given. What is at {source.path} has {whole}; if that is what you mean "
                         "to import, add it to params.yaml, so that a change of the files is noticed")
    if source.sha256 != whole:
        raise ValueError(f"{setting}.sha256: expected {source.sha256}, but what is at {source.path} has {whole}. Fetch "
                         "it again, or, if you mean to import this, change the parameter")
    return Imported(files=hashes, sha256=whole)
