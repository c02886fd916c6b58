"""Stage `encode`: features of every image, view and caption by the frozen encoders, once (DESIGN section 6).

Images are read ahead while a chunk is encoded, and features are written as they come, so memory does not grow with the
dataset (but for the captions' texts and tokens). A run that was killed goes on after the last part that is on the disk,
to the same bytes.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from repblend.data.features import feature_files, read_features
from repblend.data.images import normalise
from repblend.data.karpathy import AnnotatedImage, read_annotations
from repblend.data.prefetch import prefetched
from repblend.data.resumable import Journal, Part, fill
from repblend.data.tensor_file import TensorFile, TensorSpec
from repblend.data.views import ViewSource
from repblend.encoders.hub import checkpoints_used, identifying_files
from repblend.encoders.image import ImageEncoder, encode_in_chunks
from repblend.encoders.registry import load_image_encoder, load_text_encoder
from repblend.encoders.text import CaptionEncoder
from repblend.progress import progress
from repblend.stages.context import StageContext
from repblend.stages.provenance import provenance
from repblend.stages.resume import work_fingerprint
from repblend.stages.views import view_source
from repblend.store import atomic_path, sha256, write_json

SECTIONS = ["compute", "data", "encode"]
JOURNAL = "journal.json"


def run(context: StageContext) -> None:
    """Encode all splits; write `features/` and `metrics/encode.json`."""
    params, paths = context.params, context.paths
    annotations = read_annotations(paths.data, params.data.name, params.data.max_caption_words)
    image_encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size)
    text_encoder, device = load_text_encoder(params.encode.text_encoder), params.compute.device
    work = Encoding(context, image_encoder.to(device), text_encoder.to(device), _unfinished(context))
    images, texts, val, test = feature_files(work.folder)
    work.training(images, texts, annotations.train)
    work.split(val, annotations.val)
    work.split(test, annotations.test)
    _publish(work.folder, paths.features)
    features = read_features(paths.features)
    write_json(paths.metrics("encode"), {
        "train": {"views": list(features.train_images.shape), "captions": list(features.train_texts.shape)},
        "val": {"images": list(features.val.images.shape), "captions": list(features.val.texts.shape)},
        "test": {"images": list(features.test.images.shape), "captions": list(features.test.texts.shape)},
        "sha256": {path.name: sha256(path) for path in feature_files(paths.features)},
        "provenance": provenance(context, SECTIONS, [paths.data / "manifest.json"]) | checkpoints_used(
            [params.encode.image_encoder, params.encode.text_encoder], paths.root),
    })


@dataclass(frozen=True)
class Encoding:
    """What is encoded with what, into a folder that is not finished yet."""

    context: StageContext
    image_encoder: ImageEncoder
    text_encoder: CaptionEncoder
    folder: Path

    def training(self, images_path: Path, texts_path: Path, images: tuple[AnnotatedImage, ...]) -> None:
        """Write the features of every view, (V, I, D_img), and of every caption, (M, D_txt)."""
        encode, captions = self.context.params.encode, _captions(images)
        shape = (encode.views.num, len(images), self.image_encoder.feature_dim)
        specs = {"features": TensorSpec(encode.storage, shape)}
        with TensorFile(images_path, specs) as file:
            self._fill_images(file, "features", images, encode.views.num)
        specs = {"features": TensorSpec(encode.storage, (len(captions), self.text_encoder.feature_dim)),
                 "image_index": TensorSpec("int64", (len(captions),))}
        with TensorFile(texts_path, specs) as file:
            file.write("image_index", 0, _owners(images))
            self._fill_texts(file, "features", captions)

    def split(self, path: Path, images: tuple[AnnotatedImage, ...]) -> None:
        """Write what `SplitFeatures` has."""
        captions = _captions(images)
        specs = {"images": TensorSpec("float32", (len(images), self.image_encoder.feature_dim)),
                 "texts": TensorSpec("float32", (len(captions), self.text_encoder.feature_dim)),
                 "text_to_image": TensorSpec("int64", (len(captions),))}
        with TensorFile(path, specs) as file:
            file.write("text_to_image", 0, _owners(images))
            self._fill_images(file, "images", images, num_views=1)
            self._fill_texts(file, "texts", captions)

    def _fill_images(self, file: TensorFile, tensor: str, images: tuple[AnnotatedImage, ...], num_views: int) -> None:
        source = view_source(self.context.paths, self.context.params, images)
        parts = partial(_encoded_views, self.image_encoder, source, num_views,
                        self.context.params.compute.encoder_chunk, f"encode {file.name}")
        fill(file, tensor, self._journal, parts)

    def _fill_texts(self, file: TensorFile, tensor: str, captions: list[str]) -> None:
        fill(file, tensor, self._journal, partial(_encoded_captions, self.text_encoder, captions))

    @property
    def _journal(self) -> Journal:
        return Journal(self.folder / JOURNAL)


def _encoded_views(encoder: ImageEncoder, source: ViewSource, num_views: int, chunk: int, label: str,
                   first_chunk: int) -> Iterator[Part]:
    """Features of all views of one chunk of images after the other."""

    def read(rows: range) -> Tensor:
        views = torch.stack([source.views(row, num_views) for row in rows], dim=1)  # (V, chunk, 3, H, W)
        return normalise(views, encoder.mean, encoder.std)

    num_images = len(source.names)
    chunks = [range(first, min(first + chunk, num_images)) for first in range(0, num_images, chunk)]
    todo = prefetched(read, chunks[first_chunk:])
    for rows, views in progress(todo, label, "image", start=first_chunk * chunk * num_views,
                                total=num_images * num_views, size=lambda part: len(part[0]) * num_views):
        yield ((view * num_images + rows.start, encode_in_chunks(encoder, pixels, chunk))
               for view, pixels in enumerate(views))


def _encoded_captions(encoder: CaptionEncoder, captions: list[str], first_batch: int) -> Iterator[Part]:
    """Embeddings of one batch of captions after the other."""
    for rows, embeddings in encoder.encode_batches(captions, first_batch):
        yield zip(rows.tolist(), embeddings, strict=True)


def _captions(images: tuple[AnnotatedImage, ...]) -> list[str]:
    """All captions, in the order of the images."""
    return [caption for image in images for caption in image.captions]


def _owners(images: tuple[AnnotatedImage, ...]) -> Tensor:
    """Which image each of those captions belongs to, (M,) int64."""
    return torch.arange(len(images)).repeat_interleave(torch.tensor([len(image.captions) for image in images]))


def _unfinished(context: StageContext) -> Path:
    """Return the folder of this work; what is left of any other is removed, for it may be large."""
    encode = context.params.encode
    inputs = [*sorted(context.paths.data.glob("*.json")),
              *identifying_files([encode.image_encoder, encode.text_encoder], context.paths.root)]
    folder = context.paths.checkpoint(context.stage, work_fingerprint(context, SECTIONS, inputs))
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other)
    return folder


def _publish(unfinished: Path, target: Path) -> None:
    with atomic_path(target) as aside:
        shutil.move(unfinished, aside)  # with its journal: files without one would be begun again
        (aside / JOURNAL).unlink()
