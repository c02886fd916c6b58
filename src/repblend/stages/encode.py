"""Stage `encode`: features of every image, view and caption by the frozen encoders, once.

Images are read ahead while a chunk is encoded, and features are written as they come, so memory does not grow with the
data set (but for the captions' texts and tokens). A run that was killed goes on after the last part that is on the
disk, to the same bytes.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from repblend.data.features import Part, feature_files, fill, read_features
from repblend.data.images import normalise, prefetched
from repblend.data.karpathy import AnnotatedImage
from repblend.data.views import ViewSource
from repblend.encoders.hub import checkpoints_used, identifying_files
from repblend.encoders.image import ImageEncoder, encode_in_chunks
from repblend.encoders.text import CaptionEncoder
from repblend.progress import progress
from repblend.records.outputs import Encoded, SplitShapes, TrainingShapes
from repblend.runtime.provenance import provenance, work_fingerprint
from repblend.stages.pipeline import Context
from repblend.stages.setup import annotations_of, captions_in, image_encoder_of, text_encoder_of, view_source
from repblend.store import atomic_path, sha256
from repblend.tensors import TensorFile, TensorSpec

JOURNAL = "journal.json"


def run(context: Context) -> None:
    """Encode all splits; write `features/` and `records/encode.json`."""
    params, paths, encode = context.params, context.paths, context.params.encode
    names = [encode.image_encoder, encode.text_encoder]
    annotations = annotations_of(params, paths)
    image_encoder = image_encoder_of(params)
    text_encoder = text_encoder_of(params)
    inputs = [*sorted(paths.data.glob("*.json")), *identifying_files(names, paths.root)]
    folder = _unfinished(paths.checkpoint("encode", work_fingerprint(context, inputs)))
    work = Encoding(image_encoder, text_encoder, partial(view_source, params, paths), folder,
                    params.compute.encoder_chunk)
    train_images, train_texts, val, test = feature_files(folder)
    work.training(train_images, train_texts, annotations.train, encode.views.num, encode.storage)
    work.split(val, annotations.val)
    work.split(test, annotations.test)
    with atomic_path(paths.features) as aside:
        shutil.move(folder, aside)  # with its journal: files without one would be begun again
        (aside / JOURNAL).unlink()
    features = read_features(paths.features)
    Encoded(image_encoder=encode.image_encoder, text_encoder=encode.text_encoder,
            train=TrainingShapes(views=list(features.train_images.shape), captions=list(features.train_texts.shape)),
            **{name: SplitShapes(images=list(split.images.shape), captions=list(split.texts.shape))
               for name, split in (("val", features.val), ("test", features.test))},
            sha256={path.name: sha256(path) for path in feature_files(paths.features)},
            provenance=provenance(context, [paths.data / "manifest.json"], checkpoints_used(names, paths.root))
            ).write(paths.record("encode"))


def _unfinished(folder: Path) -> Path:
    """Return the folder of this work; what is left of any other is removed, for it may be large."""
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other)
    return folder


@dataclass(frozen=True)
class Encoding:
    """What is encoded with what, into a folder that is not finished yet."""

    image_encoder: ImageEncoder
    text_encoder: CaptionEncoder
    views_of: Callable[[tuple[AnnotatedImage, ...]], ViewSource]
    """From the images of a split to what makes their views."""
    folder: Path
    chunk: int
    """Images that pass through the encoder at once."""

    def training(self, images_path: Path, texts_path: Path, images: tuple[AnnotatedImage, ...], num_views: int,
                 storage: str) -> None:
        """Write the features of every view, (V, I, D_img), and of every caption, (M, D_txt)."""
        captions = captions_in(images)
        specs = {"features": TensorSpec(storage, (num_views, len(images), self.image_encoder.feature_dim))}
        with TensorFile(images_path, specs) as file:
            self._fill_images(file, "features", images, num_views)
        specs = {"features": TensorSpec(storage, (len(captions), self.text_encoder.feature_dim)),
                 "image_index": TensorSpec("int64", (len(captions),))}
        with TensorFile(texts_path, specs) as file:
            file.write("image_index", 0, _owners(images))
            self._fill_texts(file, "features", captions)

    def split(self, path: Path, images: tuple[AnnotatedImage, ...]) -> None:
        """Write what `SplitFeatures` has."""
        captions = captions_in(images)
        specs = {"images": TensorSpec("float32", (len(images), self.image_encoder.feature_dim)),
                 "texts": TensorSpec("float32", (len(captions), self.text_encoder.feature_dim)),
                 "text_to_image": TensorSpec("int64", (len(captions),))}
        with TensorFile(path, specs) as file:
            file.write("text_to_image", 0, _owners(images))
            self._fill_images(file, "images", images, num_views=1)
            self._fill_texts(file, "texts", captions)

    def _fill_images(self, file: TensorFile, tensor: str, images: tuple[AnnotatedImage, ...], num_views: int) -> None:
        fill(file, tensor, self.folder / JOURNAL,
             partial(encoded_views, self.image_encoder, self.views_of(images), num_views, self.chunk,
                     f"encode {file.name}"))

    def _fill_texts(self, file: TensorFile, tensor: str, captions: list[str]) -> None:
        batches = partial(self.text_encoder.encode_batches, captions)
        fill(file, tensor, self.folder / JOURNAL, lambda first: (
            zip(rows.tolist(), embeddings, strict=True) for rows, embeddings in batches(first)))


def encoded_views(encoder: ImageEncoder, source: ViewSource, num_views: int, chunk: int, label: str,
                   first_chunk: int) -> Iterator[Part]:
    """Yield the features of all views of one chunk of images after the other."""

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


def _owners(images: tuple[AnnotatedImage, ...]) -> Tensor:
    """Return which image each of the captions belongs to, (M,) int64."""
    return torch.arange(len(images)).repeat_interleave(torch.tensor([len(image.captions) for image in images]))
