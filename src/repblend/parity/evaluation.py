"""Replays of recorded student training and retrieval metrics (parity/README.md sections 5 and 6)."""

import torch
from torch import Tensor

from repblend.evaluation.protocol import first_best
from repblend.evaluation.recall import TOP_K, keep_candidates, retrieval_recalls
from repblend.evaluation.student import LR_DECAY, Recipe, published_decay_start, train_students
from repblend.matching.losses import cosine_logits
from repblend.matching.step import PerModality, Student
from repblend.parity.fixture import Fixture
from repblend.parity.toy_models import frozen_encoder, head_tower

KEPT_CANDIDATES = 128
"""The released evaluation scores that many candidates of a query."""


def replay_student(fixture: Fixture) -> dict[str, Tensor]:
    """Train the recorded student on the recorded batches; score it after the recorded epochs; keep its best."""
    encode, student = frozen_encoder(fixture), _student(fixture)
    test_images, test_texts = encode(fixture.tensor("test_images")), fixture.tensor("test_text_embeddings")
    rates, losses, heads_after, recalls = [], [], [], []
    recipe = _recipe(fixture)

    def record(epoch: int, heads: PerModality, loss: Tensor) -> None:
        losses.append(loss[0])
        heads_after.append(PerModality(*(head[0].clone() for head in heads)))
        factor = LR_DECAY if epoch >= recipe.decay_from else 1.0
        rates.append(_exact([recipe.lr_img * factor, recipe.lr_txt * factor]))
        if epoch in fixture.tensor("eval_epochs").tolist():
            scores = _scores(heads_after[-1], student, test_images, test_texts, recipe.temperature)
            recalls.append(_published_names(retrieval_recalls(scores, fixture.tensor("txt2img"))))

    initial = PerModality(fixture.tensor("init_img_flat")[None], fixture.tensor("init_txt_flat")[None])
    train_students(encode(fixture.tensor("syn_images")), fixture.tensor("syn_texts"),
                   fixture.tensor("syn_similarity"), initial, fixture.tensor("batch_indices")[None], student, recipe,
                   record)
    best = first_best(recall["r_mean"] for recall in recalls)
    outputs = {"epoch_loss": torch.stack(losses), "epoch_lr": torch.stack(rates),
               "img_flat_after_epoch": torch.stack([heads.img for heads in heads_after]),
               "txt_flat_after_epoch": torch.stack([heads.txt for heads in heads_after]),
               "eval_epochs": fixture.tensor("eval_epochs")}
    outputs |= {f"eval_{name}": _exact([recall[name] for recall in recalls]) for name in recalls[0]}
    return outputs | {f"best_{name}": _exact(value) for name, value in recalls[best].items()}


def _recipe(fixture: Fixture) -> Recipe:
    return Recipe(lr_img=fixture.number("cfg_lr_img"), lr_txt=fixture.number("cfg_lr_txt"),
                  momentum=fixture.number("cfg_momentum"), weight_decay=fixture.number("cfg_weight_decay"),
                  loss=fixture.text("cfg_loss_type").lower(), temperature=fixture.number("cfg_temperature"),
                  decay_from=published_decay_start(fixture.integer("cfg_epochs")))


def replay_retrieval(fixture: Fixture) -> dict[str, Tensor]:
    """Recall from recorded scores, and from a recorded model with the released cut to the best candidates."""
    outputs: dict[str, Tensor] = {}
    for case in (name.removesuffix("_scores_i2t") for name in fixture.names() if name.endswith("_scores_i2t")):
        recalls = retrieval_recalls(fixture.tensor(f"{case}_scores_i2t"), fixture.tensor(f"{case}_txt2img"),
                                    fixture.tensor(f"{case}_scores_t2i"))
        outputs |= {f"{case}_{name}": _exact(value) for name, value in _published_names(recalls).items()}
    return outputs | (_replay_model(fixture) if "model_test_images" in fixture else {})


def _replay_model(fixture: Fixture) -> dict[str, Tensor]:
    heads = PerModality(fixture.tensor("img_flat"), fixture.tensor("txt_flat"))
    scores = _scores(heads, _student(fixture), frozen_encoder(fixture)(fixture.tensor("model_test_images")),
                     fixture.tensor("model_test_text_embeddings"), fixture.number("cfg_temperature"))
    truncated = {"i2t": keep_candidates(scores, KEPT_CANDIDATES), "t2i": keep_candidates(scores.mT, KEPT_CANDIDATES)}
    recalls = retrieval_recalls(scores, fixture.tensor("model_txt2img"))
    outputs = {f"model_{name}": _exact(value) for name, value in _published_names(recalls).items()}
    return outputs | {f"model_scores_{way}_truncated": value for way, value in truncated.items()}


def _exact(value: float | list[float]) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _student(fixture: Fixture) -> Student:
    return Student(head_tower(fixture, "img"), head_tower(fixture, "txt"))


def _scores(heads: PerModality, student: Student, images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    return cosine_logits(student.image(images, heads.img), student.text(texts, heads.txt), temperature)


def _published_names(recalls: dict[str, float]) -> dict[str, float]:
    """Our seven recalls, and the means per direction, under the names of the released code."""
    named = {f"{theirs}_r{k}": recalls[f"{ours}_at_{k}"] for theirs, ours in (("txt", "tr"), ("img", "ir"))
             for k in TOP_K}
    means = {f"{side}_r_mean": sum(named[f"{side}_r{k}"] for k in TOP_K) / len(TOP_K) for side in ("txt", "img")}
    return named | means | {"r_mean": recalls["mean_recall"]}
