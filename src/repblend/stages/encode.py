"""Stage `encode`: features of every image, view and caption by the frozen encoders, once (DESIGN section 6)."""

import torch
from torch import Tensor

from repblend.data.features import Features, SplitFeatures, feature_files, write_features
from repblend.data.image_store import open_images
from repblend.data.images import normalise, read_images
from repblend.data.karpathy import AnnotatedImage, read_annotations
from repblend.data.views import make_view
from repblend.encoders.hub import checkpoints_used
from repblend.encoders.image import ImageEncoder, encode_in_chunks
from repblend.encoders.registry import load_image_encoder, load_text_encoder
from repblend.encoders.text import TextEncoder
from repblend.progress import progress
from repblend.stages.context import StageContext
from repblend.stages.provenance import provenance
from repblend.store import sha256, write_json

SECTIONS = ["compute", "data", "encode"]


def run(context: StageContext) -> None:
    """Encode all splits; write `features/` and `metrics/encode.json`."""
    params, paths = context.params, context.paths
    annotations = read_annotations(paths.data, params.data.name, params.data.max_caption_words)
    image_encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size)
    text_encoder = load_text_encoder(params.encode.text_encoder)
    train_texts, train_owners = _encode_captions(text_encoder, annotations.train)
    features = Features(
        _encode_views(context, image_encoder, annotations.train), train_texts, train_owners,
        *(_encode_split(context, image_encoder, text_encoder, split) for split in (annotations.val, annotations.test)),
    )
    write_features(paths.features, features)
    write_json(paths.metrics("encode"), {
        "train": {"views": list(features.train_images.shape), "captions": list(train_texts.shape)},
        "val": {"images": list(features.val.images.shape), "captions": list(features.val.texts.shape)},
        "test": {"images": list(features.test.images.shape), "captions": list(features.test.texts.shape)},
        "sha256": {path.name: sha256(path) for path in feature_files(paths.features)},
        "provenance": provenance(context, SECTIONS, [paths.data / "manifest.json"]) | checkpoints_used(
            [params.encode.image_encoder, params.encode.text_encoder], paths.root),
    })


def _encode_views(context: StageContext, encoder: ImageEncoder, images: tuple[AnnotatedImage, ...]) -> Tensor:
    """Features of every view of the training images, (V, I, D_img)."""
    params, views = context.params, context.params.encode.views
    store = open_images(context.paths.data, context.paths.repository)
    pixels = read_images(store, [image.image for image in images], params.data.image_size)
    encoded = []
    for view in progress(range(views.num), "encode views", "view"):
        shown = make_view(pixels, view, views.crop_scale_min, views.flip, params.seed)
        encoded.append(_encode_pixels(context, encoder, shown))
    return torch.stack(encoded)


def _encode_split(context: StageContext, image_encoder: ImageEncoder, text_encoder: TextEncoder,
                  images: tuple[AnnotatedImage, ...]) -> SplitFeatures:
    store = open_images(context.paths.data, context.paths.repository)
    pixels = read_images(store, [image.image for image in images], context.params.data.image_size)
    texts, owners = _encode_captions(text_encoder, images)
    return SplitFeatures(_encode_pixels(context, image_encoder, pixels), texts, owners)


def _encode_pixels(context: StageContext, encoder: ImageEncoder, pixels: Tensor) -> Tensor:
    return encode_in_chunks(encoder, normalise(pixels, encoder.mean, encoder.std), context.params.compute.encoder_chunk)


def _encode_captions(encoder: TextEncoder, images: tuple[AnnotatedImage, ...]) -> tuple[Tensor, Tensor]:
    """Embeddings of all captions, in the order of the images, and which image each belongs to."""
    captions = [caption for image in images for caption in image.captions]
    counts = torch.tensor([len(image.captions) for image in images])
    return encoder.encode(captions), torch.arange(len(images)).repeat_interleave(counts)
