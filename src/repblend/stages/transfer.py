"""Stage `transfer`: one set, students on other image encoders and on tasks that it was not made for (Tables 4 and 5 of
the paper, at the embedded scale).

- *architectures*: the set's images and the validation and test images are encoded by another image encoder; students of
  it train with the set's texts, similarity and learning rates as they are, and are scored by both protocols.
- *zero-shot*: students of the set's own encoder, each at the epoch with the best validation recall, retrieve icons by
  their names, and classify test images by ten words.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from repblend.data.features import Features, SplitFeatures, feature_files, read_features
from repblend.data.icons import read_icons
from repblend.data.images import normalise, read_images
from repblend.data.karpathy import AnnotatedImage, Annotations, read_annotations
from repblend.encoders.heads import HeadSpec
from repblend.encoders.image import ImageEncoder, encode_in_chunks
from repblend.encoders.registry import load_image_encoder, load_text_encoder
from repblend.encoders.text import TextEncoder
from repblend.evaluation.protocol import HeadPair, Scores, initial_heads, scored_epochs, student_batches
from repblend.evaluation.recall import chance_recalls
from repblend.evaluation.student import train_students
from repblend.evaluation.zero_shot import WordScores, WordTask, word_task
from repblend.matching.gradient import PerModality
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params
from repblend.progress import progress
from repblend.stages.context import Cell, StageContext
from repblend.stages.provenance import provenance
from repblend.stages.students import head_pair, make_evaluator, recipe_of, schedule_of
from repblend.store import JSON, write_json

SECTIONS = ["compute", "data", "encode", "heads", "evaluate", "transfer"]


@dataclass(frozen=True)
class Subject:
    """What is tested, and on what."""

    cell: Cell
    synthetic: SyntheticSet
    features: Features
    annotations: Annotations


def run(context: StageContext) -> None:
    """Test one cell; write `metrics/transfer/<cell>.json`."""
    params, paths, cell = context.params, context.paths, context.cell
    subject = Subject(cell, SyntheticSet.read(paths.set(cell)), read_features(paths.features),
                      read_annotations(paths.data, params.data.name, params.data.max_caption_words))
    names = progress(params.transfer.architectures, f"transfer {cell}", "encoder")
    architectures = {name: _other_encoder(context, subject, name).to_json() for name in names}
    inputs = [*feature_files(paths.features), paths.set(cell), paths.data / "manifest.json"]
    write_json(paths.metrics("transfer", cell), {
        "cell": cell.to_json(), "unit": "percent", "architectures": architectures,
        "zero_shot": _zero_shot(context, subject), "provenance": provenance(context, SECTIONS, inputs)})


def _other_encoder(context: StageContext, subject: Subject, name: str) -> Scores:
    """Train students on the set as another image encoder sees it, and score them on its view of both splits."""
    params, synthetic, features = context.params, subject.synthetic, subject.features
    encoder = load_image_encoder(name, params.data.image_size)
    splits = {"val": _seen_by(context, encoder, subject.annotations.val, features.val),
              "test": _seen_by(context, encoder, subject.annotations.test, features.test)}
    heads = HeadPair(HeadSpec(encoder.feature_dim, params.heads.width),
                     HeadSpec(features.train_texts.shape[-1], params.heads.width))
    schedule = schedule_of(subject.cell, params)
    evaluator = make_evaluator(params.evaluate, schedule, splits, heads, params.evaluate.num_seeds, params.seed)
    images = encode_in_chunks(encoder, synthetic.images, params.compute.encoder_chunk)
    return evaluator.evaluate_set(images, synthetic.texts, synthetic.similarity.matrix(),
                                  recipe_of(synthetic, params.evaluate, schedule))


def _seen_by(context: StageContext, encoder: ImageEncoder, images: tuple[AnnotatedImage, ...],
             split: SplitFeatures) -> SplitFeatures:
    """A split with its images encoded by another encoder; its captions stay as they are."""
    pixels = read_images(context.paths.data, [image.image for image in images], context.params.data.image_size)
    return SplitFeatures(_encode(encoder, pixels, context.params), split.texts, split.text_to_image)


def _encode(encoder: ImageEncoder, pixels: Tensor, params: Params) -> Tensor:
    return encode_in_chunks(encoder, normalise(pixels, encoder.mean, encoder.std), params.compute.encoder_chunk)


def _zero_shot(context: StageContext, subject: Subject) -> JSON:
    """Train students of the set's own encoder once, and score them on both tasks."""
    params, features = context.params, subject.features
    images = load_image_encoder(params.encode.image_encoder, params.data.image_size)
    texts = load_text_encoder(params.encode.text_encoder)
    heads, schedule = head_pair(features, params.heads.width), schedule_of(subject.cell, params)
    epochs = scored_epochs(schedule.epochs, schedule.scored_intervals)
    icons, task = _icons(images, texts, params), word_task([image.captions for image in subject.annotations.test])
    on_icons = Scores(heads.student, {"val": features.val, "test": icons}, epochs)
    on_words = WordScores(heads.student, features.test.images[task.images], texts.encode(task.words), task.labels,
                          epochs)
    _train(subject, images, heads, params, on_icons, on_words)
    protocols = on_icons.to_json()["protocols"]
    chosen = [seed["epoch"] for seed in protocols["held-out"]["seeds"]]
    return {"icons": {"metric": "retrieval", "num_images": len(icons.images), "protocols": protocols,
                      "chance": chance_recalls(icons.text_to_image)},
            "ten-words": _words_to_json(task) | {"protocols": {"held-out": on_words.held_out(chosen)}}}


def _icons(images: ImageEncoder, texts: TextEncoder, params: Params) -> SplitFeatures:
    pixels, captions = read_icons(params.transfer.num_icons, params.data.image_size, params.data.max_caption_words)
    return SplitFeatures(_encode(images, pixels, params), texts.encode(captions), torch.arange(len(captions)))


def _train(subject: Subject, encoder: ImageEncoder, heads: HeadPair, params: Params, *scores: Scores | WordScores
           ) -> None:
    """Train the students that stage `evaluate` trains, with others looking on."""
    synthetic, settings, schedule = subject.synthetic, params.evaluate, schedule_of(subject.cell, params)
    images = encode_in_chunks(encoder, synthetic.images, params.compute.encoder_chunk)
    initial = initial_heads(params.seed, settings.num_seeds, heads)
    batches = student_batches(params.seed, settings.num_seeds, len(images), schedule.epochs, settings.batch_size)

    def record(epoch: int, trained: PerModality, loss: Tensor) -> None:
        for each in scores:
            each.record(epoch, trained, loss)

    train_students(images, synthetic.texts, synthetic.similarity.matrix(), initial, batches, heads.student,
                   recipe_of(synthetic, settings, schedule), record)


def _words_to_json(task: WordTask) -> JSON:
    return {"metric": "top-1 accuracy", "words": task.words, "num_images": len(task.images), "chance": task.chance,
            "majority": task.majority}
