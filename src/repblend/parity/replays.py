"""Replays of the released RepBlend and LoRS: losses, similarity, heads, iterations, experts, students, recall.

A replay gives this project's functions the inputs and draws of a recording, and returns every output under its recorded
name (`repblend.parity.recordings`).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from repblend.encoders.heads import apply_head
from repblend.evaluation.head_students import train_head_students
from repblend.evaluation.protocol import first_best
from repblend.evaluation.recall import TOP_K, keep_candidates, retrieval_recalls
from repblend.evaluation.student import LR_DECAY, Recipe, published_decay_start
from repblend.experts.training import ExpertBatch, TrainingPairs, train_expert
from repblend.matching.blending import Blend
from repblend.matching.distillation import KeptGraph, Pixels
from repblend.matching.gradient import NORMALISERS, MatchingGradient, Segment, constant_memory_gradient
from repblend.matching.losses import LOSSES, cosine_logits
from repblend.matching.optimiser import Learned, LinearRates, Momenta, OuterOptimiser, OuterRates, sgd
from repblend.matching.similarity import FullSimilarity, LowRankSimilarity, Similarity
from repblend.matching.student import (
    NO_DROPOUT,
    InnerStep,
    Masks,
    PerModality,
    StudentLoss,
    SyntheticData,
    TwoTower,
    inner_loss,
)
from repblend.parity.fixture import Fixture, encoder_tower, frozen_encoder, head_spec, recorded_head

# Parts: losses, low-rank similarity, projection head.


def replay_losses(fixture: Fixture) -> dict[str, Tensor]:
    """Every loss on every case: value, first gradients, and second-order products with the case's direction."""
    outputs: dict[str, Tensor] = {}
    for case in fixture.texts("case_names"):
        for loss in fixture.texts("loss_types"):
            if f"{case}_{loss}_value" in fixture:
                outputs |= {f"{case}_{loss}_{name}": value for name, value in _loss(fixture, case, loss).items()}
    return outputs


def _loss(fixture: Fixture, case: str, loss: str) -> dict[str, Tensor]:
    logits, target = (fixture.tensor(f"{case}_{name}").requires_grad_() for name in ("logits", "sim"))
    value = LOSSES[loss.lower()](logits, target)
    grad_logits, grad_target = torch.autograd.grad(value, (logits, target), create_graph=True)
    product = (fixture.tensor(f"{case}_v") * grad_logits).sum()
    hvp_logits, hvp_target = torch.autograd.grad(product, (logits, target), materialize_grads=True)
    return {"value": value, "grad_logits": grad_logits, "grad_sim": grad_target,
            "hvp_logits": hvp_logits, "hvp_sim": hvp_target}


def replay_similarity(fixture: Fixture) -> dict[str, Tensor]:
    """Whole and batch similarity of every configuration, its gradients, and the published start."""
    outputs: dict[str, Tensor] = {}
    for case in _cases(fixture, "_similarity_batch"):
        tensors = [fixture.tensor(f"{case}_{name}").requires_grad_() for name in ("diag", "left", "right")]
        diagonal, left, right = tensors
        similarity = LowRankSimilarity(diagonal, left, right, fixture.number(f"{case}_lora_alpha"))
        batch = similarity.batch(fixture.tensor(f"{case}_indices"))
        gradients = torch.autograd.grad((fixture.tensor(f"{case}_cotangent_batch") * batch).sum(), tensors)
        start = LowRankSimilarity.identity(len(diagonal), left.shape[1], similarity.alpha,
                                           torch.Generator().manual_seed(0))
        outputs |= {f"{case}_similarity": similarity.matrix(), f"{case}_similarity_batch": batch,
                    f"{case}_default_init_similarity": start.matrix()}
        outputs |= dict(zip([f"{case}_grad_{name}" for name in ("diag", "left", "right")], gradients, strict=True))
    return outputs


def replay_head(fixture: Fixture) -> dict[str, Tensor]:
    """Output of every head, its gradients and its mixed second derivatives."""
    outputs: dict[str, Tensor] = {}
    for case in _cases(fixture, "_flat_params"):
        spec = head_spec(fixture, f"{case}_param_shapes")
        names = fixture.texts(f"{case}_param_names")
        flat = torch.cat([fixture.tensor(f"{case}_param_{name}").flatten() for name in names]).requires_grad_()
        x = fixture.tensor(f"{case}_x").requires_grad_()
        output = apply_head(x, flat, spec)
        cotangent = fixture.tensor(f"{case}_cotangent")
        grad_flat, grad_x = torch.autograd.grad((cotangent * output).sum(), (flat, x), create_graph=True)
        mixed = torch.autograd.grad(grad_flat @ fixture.tensor(f"{case}_v"), (flat, x))
        outputs |= {f"{case}_flat_params": flat, f"{case}_output": output, f"{case}_grad_flat": grad_flat,
                    f"{case}_grad_x": grad_x, f"{case}_mixed_grad_flat": mixed[0], f"{case}_mixed_grad_x": mixed[1]}
    return outputs


def _cases(fixture: Fixture, suffix: str) -> list[str]:
    return [name.removesuffix(suffix) for name in fixture.names() if name.endswith(suffix)]


# Distillation iterations of RepBlend and LoRS.

RECORDED_NAMES = {"images": "images", "texts": "texts", "lr_img": "syn_lr_img", "lr_txt": "syn_lr_txt",
                  "similarity_diagonal": "sim_diag", "similarity_left": "sim_left", "similarity_right": "sim_right",
                  "similarity_full": "sim_full"}
"""Our names of learned tensors to those of the recordings."""


def replay_distillation(fixture: Fixture) -> dict[str, Tensor]:
    """Run the recorded iterations with the recorded draws; return every recorded output under its name."""
    frozen = "enc_conv_weight" in fixture
    image_tower = recorded_head(fixture, "img") if frozen else encoder_tower(fixture)
    student = TwoTower(image_tower, recorded_head(fixture, "txt"))
    encode = frozen_encoder(fixture) if frozen else None
    objective = StudentLoss(LOSSES[fixture.text("cfg_loss_type").lower()], fixture.number("cfg_temperature"))
    learned = initial(fixture, _similarity(fixture))
    optimiser = sgd(learned, *_outer_settings(fixture))
    outputs: dict[str, Tensor] = {}
    for iteration in range(fixture.integer("cfg_num_iterations")):
        outputs |= _iterate(fixture, f"it{iteration}_", learned, optimiser, student, objective, encode)
    return outputs


def _iterate(fixture: Fixture, prefix: str, learned: Learned, optimiser: OuterOptimiser, student: TwoTower,
             objective: StudentLoss, encode: Callable[[Tensor], Tensor] | None) -> dict[str, Tensor]:
    outputs = recorded_state(f"{prefix}before_", learned)
    steps, segment = recorded_steps(fixture, prefix), recorded_segment(fixture, prefix)
    drawn = torch.cat([step.indices for step in steps]).unique()
    once = KeptGraph(learned.images, drawn, encode, 5) if encode else Pixels(learned.images, drawn)
    data = SyntheticData(once.features(), learned.texts, learned.similarity)
    normaliser = NORMALISERS["joint" if fixture.integer("cfg_merge_loss_branches") else "separate"]
    result = constant_memory_gradient(data, learned.rates, segment, steps, student, objective, normaliser)
    outputs |= _named(prefix, result, segment, [learned.similarity.batch(step.indices) for step in steps])
    if "cfg_dropout" in fixture:  # without it, the last parameters were recorded as well
        outputs |= {name: value[:-1] for name, value in outputs.items() if name.endswith("_theta")}
    for suffix, passed in (("first", steps), ("second", [step._replace(masks=step.gradient_masks) for step in steps])):
        outputs |= {prefix + name: value for name, value in _of_a_pass(
            suffix, passed, result.trace.thetas, data, student, objective).items()}
    outputs |= outer_step(prefix, once, result, learned, optimiser)
    if not math.isnan(fixture.number("cfg_clamp_lr")):
        learned.clamp_rates(fixture.number("cfg_clamp_lr"))
    return outputs


def _named(prefix: str, result: MatchingGradient, segment: Segment, similarities: list[Tensor]) -> dict[str, Tensor]:
    outputs = {"grand_loss": result.losses.img + result.losses.txt, "step_sim": torch.stack(similarities)}
    distances = segment.distances()
    for side in ("img", "txt"):
        outputs[f"{side}_theta"] = torch.stack([getattr(theta, side) for theta in result.trace.thetas])
        outputs[f"{side}_grad_sum"] = getattr(result.trace.gradient_sum, side)
        outputs[f"{side}_param_dist"] = getattr(distances, side)
        outputs[f"{side}_grand_loss"] = getattr(result.losses, side)
    return {prefix + name: value for name, value in outputs.items()}


def _of_a_pass(suffix: str, steps: list[InnerStep], thetas: list[PerModality], data: SyntheticData, student: TwoTower,
               objective: StudentLoss) -> dict[str, Tensor]:
    """What the first or the second pass over the steps sees, each with its own draws of dropout."""
    seen = [look_at(step, theta, data, student, objective) for step, theta in zip(steps, thetas, strict=False)]
    losses, logits, slopes = zip(*seen, strict=True)
    behind = "" if suffix == "first" else "_second_pass"
    return {f"step_loss{behind}": torch.stack(losses), f"step0_logits{behind}": logits[0],
            f"img_grad_{suffix}": torch.stack([slope.img for slope in slopes]),
            f"txt_grad_{suffix}": torch.stack([slope.txt for slope in slopes])}


def recorded_state(prefix: str, learned: Learned) -> dict[str, Tensor]:
    """Return copies of what is learned, under the recorded names."""
    return {f"{prefix}{RECORDED_NAMES[name]}": value.clone() for name, value in learned.tensors.items()}


def outer_step(prefix: str, once: KeptGraph | Pixels, result: MatchingGradient, learned: Learned,
               optimiser: OuterOptimiser) -> dict[str, Tensor]:
    """Take the step of the outer loop; return the gradients, and what is learned after it, under the recorded names."""
    result.data["images"] = once.pull_back(result.data["images"])
    learned.set_gradients(result.data, result.rates)
    outputs = {f"{prefix}grad_{RECORDED_NAMES[name]}": value.grad for name, value in learned.tensors.items()
               if value.grad is not None}
    optimiser.step()
    return outputs | recorded_state(f"{prefix}after_", learned)


def look_at(step: InnerStep, theta: PerModality, data: SyntheticData, student: TwoTower,
            objective: StudentLoss) -> tuple[Tensor, Tensor, PerModality]:
    """Return a step's loss, its logits (B, B), and the loss's gradient in theta, (P,) each."""
    seen: list[Tensor] = []

    def spy(logits: Tensor, target: Tensor) -> Tensor:
        seen.append(logits.detach())
        return objective.loss(logits, target)

    leaves = PerModality(*(value.detach().requires_grad_() for value in theta))
    loss = inner_loss(student, leaves, data.rows(step.indices), step, StudentLoss(spy, objective.temperature))
    return loss.detach(), seen[0], PerModality(*torch.autograd.grad(loss, leaves))


def initial(fixture: Fixture, similarity: Similarity) -> Learned:
    """Return what the recorded iterations start from."""
    rates = PerModality(*(fixture.tensor(f"init_syn_lr_{side}").to(fixture.precision) for side in ("img", "txt")))
    return Learned(fixture.tensor("init_images"), fixture.tensor("init_texts"), similarity, rates, LinearRates)


def _similarity(fixture: Fixture) -> Similarity:
    if "init_sim_full" in fixture:
        return FullSimilarity(fixture.tensor("init_sim_full"))
    return LowRankSimilarity(fixture.tensor("init_sim_diag"), fixture.tensor("init_sim_left"),
                             fixture.tensor("init_sim_right"), fixture.number("cfg_lora_alpha"))


def _outer_settings(fixture: Fixture) -> tuple[OuterRates, Momenta]:
    rate, momentum = (lambda name: fixture.number(f"cfg_outer_lr_{name}"),
                      lambda name: fixture.number(f"cfg_momentum_{name}"))
    return (OuterRates(rate("img"), rate("txt"), rate("sim"), rate("lr")),
            Momenta(momentum("syn"), momentum("lr"), momentum("sim")))


def recorded_segment(fixture: Fixture, prefix: str) -> Segment:
    """The stretch of an expert that an iteration matches."""
    expert, start = fixture.integer(f"{prefix}expert_idx"), fixture.integer(f"{prefix}start_epoch")
    end = start + fixture.integer("cfg_expert_epochs")
    snapshots = [fixture.tensor(f"{side}_expert_flat")[expert] for side in ("img", "txt")]
    return Segment(PerModality(*(snapshot[start] for snapshot in snapshots)),
                   PerModality(*(snapshot[end] for snapshot in snapshots)))


def recorded_steps(fixture: Fixture, prefix: str) -> list[InnerStep]:
    """The draws of an iteration's steps."""
    batches = list(fixture.tensor(f"{prefix}batch_indices"))
    first, second = (_masks(fixture, prefix, suffix, len(batches)) for suffix in ("_first", "_second"))
    if f"{prefix}blend_lam" not in fixture:
        return [InnerStep(indices, None, *masks) for indices, *masks in zip(batches, first, second, strict=True)]
    weights, permutations = fixture.tensor(f"{prefix}blend_lam"), fixture.tensor(f"{prefix}blend_perm")
    return [InnerStep(indices, Blend(weight.item(), permutation), *masks)
            for indices, weight, permutation, *masks in zip(batches, weights, permutations, first, second, strict=True)]


def _masks(fixture: Fixture, prefix: str, suffix: str, num_steps: int) -> list[Masks]:
    """What dropout keeps in every step of a pass. MTT-VL has one pass, and dropout in the text head alone."""
    if f"{prefix}img_kept{suffix}" in fixture:
        return [Masks(*kept) for kept in zip(*(fixture.tensor(f"{prefix}{side}_kept{suffix}")
                                               for side in ("img", "txt")), strict=True)]
    if f"{prefix}text_kept" in fixture:
        return [Masks(None, kept) for kept in fixture.tensor(f"{prefix}text_kept")]
    return [NO_DROPOUT] * num_steps


# Training: an expert, and a student with the metrics that it is scored by.


def replay_expert(fixture: Fixture) -> dict[str, Tensor]:
    """Train the recorded expert on the recorded batches: heads after every epoch, its mean loss and accuracy."""
    features = frozen_encoder(fixture)(fixture.tensor("images"))
    pairs = TrainingPairs(features[None], fixture.tensor("texts"), torch.arange(len(features)))
    initial = PerModality(fixture.tensor("init_img_flat"), fixture.tensor("init_txt_flat"))
    epochs = fixture.tensor("batch_indices")  # (epochs, batches, B)
    draws = (ExpertBatch(rows, torch.zeros_like(rows)) for rows in epochs.flatten(0, 1))
    steps = list(train_expert(pairs, initial, draws, _student(fixture), fixture.number("cfg_lr"),
                              fixture.number("cfg_momentum"), fixture.number("cfg_weight_decay"),
                              fixture.number("cfg_temperature")))
    per_epoch = epochs.shape[1]
    snapshots = [initial, *(heads for _, heads in steps[per_epoch - 1::per_epoch])]
    results = torch.tensor([(result.loss, result.accuracy) for result, _ in steps], dtype=torch.float64)
    loss, accuracy = results.view(len(epochs), per_epoch, 2).mean(dim=1).unbind(dim=1)
    return {"epoch_loss": loss, "epoch_acc": accuracy,
            "img_flat_per_epoch": torch.stack([heads.img for heads in snapshots]),
            "txt_flat_per_epoch": torch.stack([heads.txt for heads in snapshots])}


KEPT_CANDIDATES = 128
"""The released evaluation scores that many candidates of a query."""


def replay_student(fixture: Fixture) -> dict[str, Tensor]:
    """Train the recorded student on the recorded batches; score it after the recorded epochs; keep its best."""
    encode, student = frozen_encoder(fixture), _student(fixture)
    specs = [head_spec(fixture, f"{side}_param_shapes") for side in ("img", "txt")]
    test_images, test_texts = encode(fixture.tensor("test_images")), fixture.tensor("test_text_embeddings")
    rates, losses, heads_after, recalls = [], [], [], []
    recipe = _recipe(fixture)

    def record(epoch: int, trained: Callable[[], PerModality], loss: Tensor) -> None:
        losses.append(loss[0])
        heads_after.append(PerModality(*(head[0] for head in trained())))
        factor = LR_DECAY if recipe.decay_from is not None and epoch >= recipe.decay_from else 1.0
        rates.append(_exact([recipe.lr_img * factor, recipe.lr_txt * factor]))
        if epoch in fixture.tensor("eval_epochs").tolist():
            scores = _scores(heads_after[-1], student, test_images, test_texts, recipe.temperature)
            recalls.append(published_names(retrieval_recalls(scores, fixture.tensor("txt2img"))))

    initial = PerModality(fixture.tensor("init_img_flat")[None], fixture.tensor("init_txt_flat")[None])
    train_head_students(encode(fixture.tensor("syn_images")), fixture.tensor("syn_texts"),
                        fixture.tensor("syn_similarity"), initial, fixture.tensor("batch_indices")[None], specs, recipe,
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
        outputs |= {f"{case}_{name}": _exact(value) for name, value in published_names(recalls).items()}
    return outputs | (_replay_model(fixture) if "model_test_images" in fixture else {})


def _replay_model(fixture: Fixture) -> dict[str, Tensor]:
    heads = PerModality(fixture.tensor("img_flat"), fixture.tensor("txt_flat"))
    scores = _scores(heads, _student(fixture), frozen_encoder(fixture)(fixture.tensor("model_test_images")),
                     fixture.tensor("model_test_text_embeddings"), fixture.number("cfg_temperature"))
    truncated = {"i2t": keep_candidates(scores, KEPT_CANDIDATES), "t2i": keep_candidates(scores.mT, KEPT_CANDIDATES)}
    recalls = retrieval_recalls(scores, fixture.tensor("model_txt2img"))
    outputs = {f"model_{name}": _exact(value) for name, value in published_names(recalls).items()}
    return outputs | {f"model_scores_{way}_truncated": value for way, value in truncated.items()}


def _exact(value: float | list[float]) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _student(fixture: Fixture) -> TwoTower:
    return TwoTower(recorded_head(fixture, "img"), recorded_head(fixture, "txt"))


def _scores(heads: PerModality, student: TwoTower, images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    return cosine_logits(student.image(images, heads.img), student.text(texts, heads.txt), temperature)


def published_names(recalls: dict[str, float]) -> dict[str, float]:
    """Our seven recalls, and the means per direction, under the names of the released code."""
    named = {f"{theirs}_r{k}": recalls[f"{ours}_at_{k}"] for theirs, ours in (("txt", "tr"), ("img", "ir"))
             for k in TOP_K}
    means = {f"{side}_r_mean": sum(named[f"{side}_r{k}"] for k in TOP_K) / len(TOP_K) for side in ("txt", "img")}
    return named | means | {"r_mean": recalls["mean_recall"]}
