"""Stage `transfer`: one set, students on other image encoders and on tasks that it was not made for (Tables 4 and 5 of
the paper, at the embedded scale).

- *architectures*: the set's images and the validation and test images are encoded by another image encoder; students of
  it train with the set's texts, similarity and learning rates as they are, and are scored by both protocols.
- *zero-shot*: students of the set's own encoder, each at the epoch with the best validation recall, retrieve icons by
  their names, and classify test images by ten words.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from repblend.data.features import Features, SplitFeatures, feature_files, read_features
from repblend.data.icons import read_icons
from repblend.data.images import normalise
from repblend.data.karpathy import AnnotatedImage, Annotations, read_annotations
from repblend.encoders.hub import checkpoints_used
from repblend.encoders.image import ImageEncoder, encode_in_chunks
from repblend.encoders.registry import load_image_encoder, load_text_encoder
from repblend.encoders.text import CaptionEncoder
from repblend.evaluation.protocol import Scores
from repblend.evaluation.recall import chance_recalls
from repblend.evaluation.towers import HeadPair
from repblend.evaluation.zero_shot import WordScores, WordTask, word_task
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params
from repblend.progress import progress
from repblend.stages.cell_rules import schedule_of, trains_encoder
from repblend.stages.cells import recipe_of, student_model
from repblend.stages.context import Cell, StageContext
from repblend.stages.provenance import provenance
from repblend.stages.students import (
    StudentModel,
    encoder_students,
    head_students,
    make_evaluator,
    read_pixels,
)
from repblend.store import JSON, write_json

log = logging.getLogger("repblend")

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
        "zero_shot": _zero_shot(context, subject),
        "provenance": provenance(context, SECTIONS, inputs) | checkpoints_used(params.encoders, paths.root)})


def _other_encoder(context: StageContext, subject: Subject, name: str) -> Scores:
    """Train students on the set as another image encoder sees it, and score them on its view of both splits."""
    params, cell, synthetic = context.params, subject.cell, subject.synthetic
    model = _students_on(context, subject, load_image_encoder(name, params.data.image_size).to(params.compute.device))
    evaluator = make_evaluator(params, schedule_of(cell, params), {"val": model.val, "test": model.test}, model.towers,
                               params.evaluate.num_seeds)
    return evaluator.evaluate_set(model.inputs(synthetic.images), synthetic.texts, synthetic.similarity.matrix(),
                                  recipe_of(cell, synthetic, params))


def _students_on(context: StageContext, subject: Subject, encoder: ImageEncoder) -> StudentModel:
    """The cell's kind of students, with another image encoder; captions stay as they are."""
    params, paths, features = context.params, context.paths, subject.features
    if trains_encoder(subject.cell, params):
        return encoder_students(encoder, params, paths, features)
    heads = heads_on(encoder.feature_dim, features.train_texts.shape[-1], params)

    def seen(split: SplitFeatures, images: tuple[AnnotatedImage, ...]) -> SplitFeatures:
        pixels = read_pixels(paths, images, params.data.image_size, encoder)
        return replace(split, images=encode_in_chunks(encoder, pixels, params.compute.encoder_chunk))

    return head_students(encoder, heads, seen(features.val, subject.annotations.val),
                         seen(features.test, subject.annotations.test), params.compute.encoder_chunk)


def heads_on(image_width: int, text_width: int, params: Params) -> HeadPair:
    """Return the heads of students on another image encoder, from the widths of its features and of texts."""
    width = image_width if params.transfer.head_width == "image-features" else params.heads.width
    return HeadPair.of_widths(image_width, text_width, width, params.heads.dropout)


def _zero_shot(context: StageContext, subject: Subject) -> JSON:
    """Train students of the set's own encoder once, and score them on both tasks."""
    params, cell, synthetic = context.params, subject.cell, subject.synthetic
    encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size).to(params.compute.device)
    model = student_model(cell, encoder, params, context.paths, subject.features)
    texts = load_text_encoder(params.encode.text_encoder).to(params.compute.device)
    icons = _icons(encoder, model, texts, params)
    evaluator = make_evaluator(params, schedule_of(cell, params), {"val": model.val, "test": icons}, model.towers,
                               params.evaluate.num_seeds)
    on_icons = evaluator.scores()
    on_words = _on_words(subject, model, texts, on_icons.epochs)
    evaluator.train_on_set(model.inputs(synthetic.images), synthetic.texts, synthetic.similarity.matrix(),
                           recipe_of(cell, synthetic, params), on_icons.record,
                           *([on_words.scores.record] if on_words else []))
    protocols = on_icons.to_json()["protocols"]
    chosen = [seed["epoch"] for seed in protocols["held-out"]["seeds"]]
    tasks: JSON = {"icons": {"metric": "retrieval", "num_images": len(icons.images), "protocols": protocols,
                             "chance": chance_recalls(icons.text_to_image)}}
    return tasks | ({"ten-words": on_words.to_json(chosen)} if on_words else {})


@dataclass(frozen=True)
class OnWords:
    """The task of ten words, and how students do on it."""

    task: WordTask
    scores: WordScores

    def to_json(self, chosen_epochs: list[int]) -> JSON:
        task = self.task
        return {"metric": "top-1 accuracy", "words": task.words, "num_images": len(task.images), "chance": task.chance,
                "majority": task.majority, "protocols": {"held-out": self.scores.held_out(chosen_epochs)}}


def _on_words(subject: Subject, model: StudentModel, texts: CaptionEncoder, epochs: Sequence[int]) -> OnWords | None:
    """The task of ten words; None, and a line in the log, where the test captions do not have ten fit words."""
    try:
        task = word_task([image.captions for image in subject.annotations.test])
    except ValueError as error:
        log.warning("transfer %s: left out the task of ten words. %s", subject.cell, error)
        return None
    return OnWords(task, WordScores(model.towers.student, model.test.images[task.images], texts.encode(task.words),
                                    task.labels, epochs))


def _icons(encoder: ImageEncoder, model: StudentModel, texts: CaptionEncoder, params: Params) -> SplitFeatures:
    pixels, captions = read_icons(params.transfer.num_icons, params.data.image_size, params.data.max_caption_words)
    images = model.inputs(normalise(pixels, encoder.mean, encoder.std))
    return SplitFeatures(images, texts.encode(captions), torch.arange(len(captions)))
