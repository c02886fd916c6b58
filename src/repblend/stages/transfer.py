"""Stage `transfer`: one set, students on other image encoders and on tasks that it was not made for (Tables 4 and 5, at
the embedded scale).

- *architectures*: the set's images and the validation and test images are encoded by another image encoder; students of
  it train with the set's texts, similarity and learning rates as they are, and are scored by both protocols.
- *zero-shot*: students of the set's own encoder, each at the epoch with the best validation recall, retrieve icons by
  their names, and classify test images by ten words.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from repblend.data.features import Features, SplitFeatures, feature_files, read_features
from repblend.data.icons import read_icons
from repblend.data.images import normalise
from repblend.data.karpathy import AnnotatedImage, Annotations
from repblend.encoders.hub import checkpoints_used
from repblend.encoders.image import ImageEncoder, encode_in_chunks
from repblend.encoders.text import CaptionEncoder
from repblend.evaluation.protocol import Scores
from repblend.evaluation.recall import chance_recalls
from repblend.evaluation.student import OnEpoch
from repblend.evaluation.towers import HeadPair
from repblend.evaluation.zero_shot import WordScores, word_task
from repblend.grid import Cell, schedule_of
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params
from repblend.progress import progress
from repblend.records.base import Recalls
from repblend.records.results import IconRetrieval, StudentScores, Transferred, WordAccuracy, WordProtocols, ZeroShot
from repblend.runtime.context import Paths
from repblend.runtime.provenance import provenance
from repblend.schedules import scored_epochs
from repblend.stages.pipeline import Context
from repblend.stages.setup import annotations_of, image_encoder_of, read_pixels, text_encoder_of
from repblend.stages.students import StudentModel, encoder_students, make_evaluator, recipe_of, student_model

log = logging.getLogger("repblend")


def run(context: Context) -> None:
    """Test one cell; write `records/transfer/<cell>/record.json`."""
    params, paths, cell = context.params, context.paths, context.cell
    subject = Subject(cell, SyntheticSet.read(paths.set(cell)), read_features(paths.features),
                      annotations_of(params, paths), params, paths)
    architectures = {}
    for name in progress(params.transfer.architectures, f"transfer {cell}", "encoder"):
        model = subject.students_on(image_encoder_of(params, name))
        architectures[name] = StudentScores(**subject.train(model, model.test).to_json())
    zero_shot = _zero_shot(subject, image_encoder_of(params), text_encoder_of(params))
    inputs = [*feature_files(paths.features), paths.set(cell), paths.data / "manifest.json"]
    used = [params.encode.image_encoder, params.encode.text_encoder, *params.transfer.architectures]
    Transferred(cell=cell.record, architectures=architectures, zero_shot=zero_shot,
                provenance=provenance(context, inputs, checkpoints_used(used, paths.root))
                ).write(paths.record("transfer", cell))


@dataclass(frozen=True)
class Subject:
    """What is tested, and on what."""

    cell: Cell
    synthetic: SyntheticSet
    features: Features
    annotations: Annotations
    params: Params
    paths: Paths

    def students_on(self, encoder: ImageEncoder) -> StudentModel:
        """Return the cell's kind of students on another image encoder; captions stay as they are."""
        params, paths, features = self.params, self.paths, self.features
        if self.cell.trains_encoder:
            return encoder_students(encoder, params, paths, features)
        encode = partial(encode_in_chunks, encoder, chunk=params.compute.encoder_chunk)

        def seen(split: SplitFeatures, images: tuple[AnnotatedImage, ...]) -> SplitFeatures:
            pixels = read_pixels(paths, images, params.data.image_size, encoder.mean, encoder.std)
            return replace(split, images=encode(pixels))

        return StudentModel(heads_on(encoder.feature_dim, features.widths[1], params), encode,
                            seen(features.val, self.annotations.val), seen(features.test, self.annotations.test))

    def train(self, model: StudentModel, test: SplitFeatures, onlookers: Sequence[OnEpoch] = ()) -> Scores:
        """Train students on the set, score them on their validation split and `test`, and let others look on."""
        params, synthetic = self.params, self.synthetic
        recipe = recipe_of(self.cell, synthetic.lr_img, synthetic.lr_txt, synthetic.metadata["loss"], params,
                           synthetic.metadata.get("temperature"))
        evaluator = make_evaluator(schedule_of(self.cell, params.evaluate), params, {"val": model.val, "test": test},
                                   model.towers, params.evaluate.num_seeds, self.cell.seed)
        return evaluator.evaluate_set(model.inputs(synthetic.images), synthetic.texts, synthetic.similarity.matrix(),
                                      recipe, *onlookers)


def heads_on(image_width: int, text_width: int, params: Params) -> HeadPair:
    """Return the heads of students on another image encoder, from the widths of its features and of texts."""
    width = image_width if params.transfer.head_width == "image-features" else params.heads.width
    return HeadPair.of_widths(image_width, text_width, width, params.heads.dropout)


def _zero_shot(subject: Subject, encoder: ImageEncoder, texts: CaptionEncoder) -> ZeroShot:
    """Train students of the set's own encoder once, and score them on both tasks."""
    params = subject.params
    model = student_model(subject.cell, encoder, params, subject.paths, subject.features)
    pixels, names = read_icons(params.transfer.num_icons, params.data.image_size, params.data.max_caption_words)
    images = model.inputs(normalise(pixels, encoder.mean, encoder.std))
    icons = SplitFeatures(images, texts.encode(names), torch.arange(len(names)))
    try:
        words = word_task([image.captions for image in subject.annotations.test])
    except ValueError as error:
        log.warning("transfer %s: left out the task of ten words. %s", subject.cell, error)
        words = None
    schedule = schedule_of(subject.cell, params.evaluate)
    on_words = words and WordScores(model.towers.student, model.test.images[words.images], texts.encode(words.words),
                                    words.labels, scored_epochs(schedule.epochs, schedule.scored_intervals))
    protocols = subject.train(model, icons, [on_words.record] if on_words else []).to_json()["protocols"]
    retrieval = IconRetrieval(num_images=len(images), chance=Recalls(**chance_recalls(icons.text_to_image)),
                              protocols=protocols)
    if not words or not on_words:
        return ZeroShot(icons=retrieval, **{"ten-words": None})
    held_out = on_words.held_out([seed["epoch"] for seed in protocols["held-out"]["seeds"]])
    return ZeroShot(icons=retrieval, **{"ten-words": WordAccuracy(
        words=words.words, num_images=len(words.images), chance=words.chance, majority=words.majority,
        protocols=WordProtocols.model_validate({"held-out": held_out}))})
