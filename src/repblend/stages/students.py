"""Students as `params.yaml` describes them: what the stages that train them have in common."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from repblend.data.features import Features, SplitFeatures
from repblend.data.image_store import open_images
from repblend.data.images import normalise, read_images
from repblend.data.karpathy import AnnotatedImage, read_annotations
from repblend.encoders.heads import HeadSpec
from repblend.encoders.image import ImageEncoder, encode_in_chunks
from repblend.encoders.registry import load_text_encoder
from repblend.encoders.text import TextEncoder
from repblend.evaluation.evaluate import Evaluator
from repblend.evaluation.protocol import HeadPair, Split
from repblend.evaluation.towers import EncoderAndHead, Towers
from repblend.experts.training import TrainingPairs
from repblend.params import Experts, Params, StudentSchedule
from repblend.stages.context import Paths


def encoder_and_head(features: Features, encoder: ImageEncoder, dropout: float) -> EncoderAndHead:
    """Return the trained image encoder with the text head that fits it."""
    return EncoderAndHead(encoder, HeadSpec(features.train_texts.shape[-1], encoder.feature_dim, dropout))


def training_pairs(features: Features) -> TrainingPairs:
    """Return the real training set as frozen features."""
    return TrainingPairs(features.train_images, features.train_texts, features.train_image_index)


@dataclass(frozen=True)
class TrainingCaptions:
    """The training captions and the encoder that reads them."""

    captions: list[str]
    """In the order of their features."""
    encoder: TextEncoder

    def encode_in_training(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return features (B, D_txt) of these captions (B,), with the encoder's dropout active."""
        return self.encoder.encode_in_training([self.captions[row] for row in rows.tolist()], generator)


def captions_of(settings: Experts, params: Params, paths: Paths) -> TrainingCaptions | None:
    """Return the captions that experts encode in every batch; None where these settings take the cached features."""
    if settings.text_mode == "eval":
        return None
    train = read_annotations(paths.data, params.data.name, params.data.max_caption_words).train
    return TrainingCaptions([caption for image in train for caption in image.captions],
                            load_text_encoder(params.encode.text_encoder).to(params.compute.device))


@dataclass(frozen=True)
class StudentModel:
    """A kind of student, and what it needs of sets and splits."""

    towers: Towers
    inputs: Callable[[Tensor], Tensor]
    """From normalised images (N, 3, H, W) to what students see of them."""
    val: Split
    test: Split


def head_students(encoder: ImageEncoder, heads: HeadPair, val: Split, test: Split, encoder_chunk: int) -> StudentModel:
    """Students that train both projection heads on frozen features (RepBlend, coresets)."""
    return StudentModel(heads, partial(encode_in_chunks, encoder, chunk=encoder_chunk), val, test)


def encoder_students(encoder: ImageEncoder, params: Params, paths: Paths, features: Features) -> StudentModel:
    """Students that train the whole image encoder and a text head on pixels (MTT-VL, TESLA-VL, LoRS)."""
    annotations = read_annotations(paths.data, params.data.name, params.data.max_caption_words)

    def with_pixels(split: SplitFeatures, images: tuple[AnnotatedImage, ...]) -> SplitFeatures:
        return replace(split, images=read_pixels(paths, images, params.data.image_size, encoder))

    return StudentModel(encoder_and_head(features, encoder, params.heads.dropout), lambda images: images,
                        with_pixels(features.val, annotations.val), with_pixels(features.test, annotations.test))


def read_pixels(paths: Paths, images: Iterable[AnnotatedImage], image_size: int, encoder: ImageEncoder) -> Tensor:
    """Read images (N, 3, H, W), normalised for the encoder."""
    store = open_images(paths.data, paths.repository)
    return normalise(read_images(store, [image.image for image in images], image_size), encoder.mean, encoder.std)


def make_evaluator(params: Params, schedule: StudentSchedule, splits: dict[str, Split], towers: Towers,
                   num_seeds: int) -> Evaluator:
    """Return how sets are evaluated on the given splits."""
    settings = params.evaluate
    return Evaluator(splits, towers, params.seed, num_seeds, schedule.epochs, schedule.scored_intervals,
                     settings.batch_size, settings.batches, settings.protocol, settings.candidates,
                     params.compute.device)
