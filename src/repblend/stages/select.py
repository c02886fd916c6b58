"""Stage `select`: choose a coreset of real pairs (PAPER.md section 10)."""

from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from repblend.coresets.candidates import candidate_pairs
from repblend.coresets.forgetting import forgetting, forgetting_counts, record_correctness
from repblend.coresets.herding import herding
from repblend.coresets.joint import ROWS_AT_ONCE, joint_features
from repblend.coresets.k_center import k_center
from repblend.coresets.random import random_pairs
from repblend.data.features import Features, feature_files, read_features
from repblend.data.karpathy import read_annotations
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.towers import HeadPair
from repblend.experts.training import ExpertBatch, draw_epoch, train_expert, with_dropout
from repblend.matching.similarity import IdentitySimilarity
from repblend.matching.step import PerModality
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params, WarmUp
from repblend.stages.context import StageContext
from repblend.stages.provenance import provenance
from repblend.stages.students import read_pixels, training_pairs
from repblend.store import write_json
from repblend.streams import stream

SECTIONS = ["compute", "data", "encode", "heads", "select"]


def run(context: StageContext) -> None:
    """Choose one cell's pairs; write its set and `metrics/select/<cell>.json`."""
    params, paths, cell = context.params, context.paths, context.cell
    features = read_features(paths.features)
    train = read_annotations(paths.data, params.data.name, params.data.max_caption_words).train
    pairs = _choose(cell.method, cell.budget, features, params)
    shown = [train[features.train_image_index[pair]] for pair in pairs]
    encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size)
    images = read_pixels(paths, shown, params.data.image_size, encoder)
    select = params.select
    metadata = {"cell": cell.to_json(), "loss": select.loss, "pairs": pairs}
    SyntheticSet(images, features.texts_of(pairs), IdentitySimilarity(len(pairs)), select.lr_img[cell.method],
                 select.lr_txt[cell.method], metadata).write(paths.set(cell))
    captions = [caption for image in train for caption in image.captions]
    write_json(paths.metrics("select", cell), {
        "cell": cell.to_json(), "pairs": [{"image": image.image, "caption": captions[pair]}
                                          for image, pair in zip(shown, pairs, strict=True)],
        "provenance": provenance(context, SECTIONS, [*feature_files(paths.features), paths.data / "manifest.json"])})


def _choose(method: str, budget: int, features: Features, params: Params) -> list[int]:
    """Return the chosen caption rows.

    Raises:
        ValueError: no coreset method has this name, or the budget exceeds the training images.
    """
    if method not in CORESETS:
        raise ValueError(f"grid.coresets: {method!r} is not known; expected one of {', '.join(CORESETS)}")
    candidates = candidate_pairs(features.train_image_index, params.seed)
    return CORESETS[method](candidates, budget, features, params)


def _random(candidates: Tensor, budget: int, features: Features, params: Params) -> list[int]:
    return random_pairs(candidates, budget, params.seed)


def _herding(candidates: Tensor, budget: int, features: Features, params: Params) -> list[int]:
    return candidates[herding(_joint(candidates, features, params), budget)].tolist()


def _k_center(candidates: Tensor, budget: int, features: Features, params: Params) -> list[int]:
    first = int(torch.randint(len(candidates), (), generator=stream(params.seed, "coreset", "k-center", "first")))
    return candidates[k_center(_joint(candidates, features, params), budget, first)].tolist()


def _forgetting(candidates: Tensor, budget: int, features: Features, params: Params) -> list[int]:
    counts = _times_forgotten(features, params.select.warm_up, params.select.forgetting_epochs,
                              _heads(features, params), params.seed)
    order = torch.randperm(len(candidates), generator=stream(params.seed, "coreset", "forgetting", "order"))
    return candidates[forgetting(counts[candidates], order, budget)].tolist()


CORESETS: dict[str, Callable[[Tensor, int, Features, Params], list[int]]] = {
    "random": _random, "herding": _herding, "k-center": _k_center, "forgetting": _forgetting}
"""Every coreset method by its name in `params.yaml`."""


def _heads(features: Features, params: Params) -> HeadPair:
    return HeadPair.of_widths(*features.widths, params.heads.width, params.heads.dropout)


def _joint(candidates: Tensor, features: Features, params: Params) -> Tensor:
    """Joint features (I, 2 D) of the candidates under heads that were warmed up on the real pairs."""
    heads = _heads(features, params)
    warm = _warm_up(features, params.select.warm_up, heads, params.seed)
    parts = [joint_features(features.images_of(features.train_image_index[part]), features.texts_of(part), warm,
                            heads.student) for part in candidates.split(ROWS_AT_ONCE)]
    return torch.cat(parts)


def _warm_up(features: Features, settings: WarmUp, heads: HeadPair, seed: int) -> PerModality:
    epochs = _warm_up_epochs(features, settings, settings.epochs, seed)
    return deque(_warm_up_heads(features, settings, epochs, heads, seed), maxlen=1)[0]  # never all of them in memory


def _times_forgotten(features: Features, settings: WarmUp, num_epochs: int, heads: HeadPair, seed: int) -> Tensor:
    """How often each caption row was forgotten, (M,); the training goes on where herding's warm-up ends."""
    epochs = _warm_up_epochs(features, settings, num_epochs, seed)
    after_steps = _warm_up_heads(features, settings, epochs, heads, seed)
    correct, seen = record_correctness(training_pairs(features), epochs, after_steps, heads.student)
    return forgetting_counts(correct, seen)


def _warm_up_epochs(features: Features, settings: WarmUp, num_epochs: int, seed: int) -> list[list[ExpertBatch]]:
    pairs = training_pairs(features)
    return [draw_epoch(len(pairs.texts), pairs.num_views, settings.batch_size,
                       stream(seed, "coreset", "warm-up", "epoch", epoch)) for epoch in range(num_epochs)]


def _warm_up_heads(features: Features, settings: WarmUp, epochs: list[list[ExpertBatch]], heads: HeadPair,
                   seed: int) -> Iterator[PerModality]:
    """Yield the initial heads, then those after every step."""
    pairs = training_pairs(features)
    initial = heads.initial(stream(seed, "coreset", "warm-up", "image head"),
                            stream(seed, "coreset", "warm-up", "text head"))
    yield initial
    draws = with_dropout((draw for epoch in epochs for draw in epoch), heads.draw_masks,
                         stream(seed, "coreset", "warm-up", "dropout"))
    steps = train_expert(pairs, initial, draws, heads.student, settings.lr, 0.0, 0.0, settings.temperature)
    yield from (after for _, after in steps)
