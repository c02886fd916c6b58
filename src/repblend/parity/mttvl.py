"""Replays of the released MTT-VL: iterations through all inner steps, and its students (`paper/METHOD.md`, sections 6
and 8).

Both train the whole image encoder and a text head, which has dropout in some recordings.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from repblend.evaluation.recall import keep_candidates, retrieval_recalls
from repblend.evaluation.student import Recipe, StudentBatch, batch_losses, train_on
from repblend.evaluation.towers import one_by_one
from repblend.matching.distillation import Pixels
from repblend.matching.gradient import NORMALISERS, unrolled_gradient
from repblend.matching.losses import LOSSES, cosine_logits
from repblend.matching.optimiser import Learned, Momenta, OuterOptimiser, OuterRates, sgd
from repblend.matching.similarity import IdentitySimilarity
from repblend.matching.student import Masks, PerModality, StudentLoss, SyntheticData, TwoTower, per_modality
from repblend.parity.fixture import Fixture, encoder_tower, recorded_head
from repblend.parity.replays import (
    KEPT_CANDIDATES,
    initial,
    look_at,
    outer_step,
    published_names,
    recorded_segment,
    recorded_state,
    recorded_steps,
)


def _student(fixture: Fixture) -> TwoTower:
    return TwoTower(encoder_tower(fixture), recorded_head(fixture, "txt"), stack=one_by_one)


# Iterations.


def replay_distillation(fixture: Fixture) -> dict[str, Tensor]:
    """Run the recorded iterations with the recorded draws; return every recorded output under its name."""
    number = fixture.number
    learned = initial(fixture, IdentitySimilarity(fixture.integer("cfg_num_pairs")))
    momentum = number("cfg_momentum")
    optimiser = sgd(learned, OuterRates(images=number("cfg_outer_lr_img"), texts=number("cfg_outer_lr_txt"),
                                        similarity=0.0, rates=number("cfg_outer_lr_lr")),
                    Momenta(synthetic=momentum, rates=momentum, similarity=momentum))
    objective = StudentLoss(LOSSES["infonce"], 1 / number("cfg_logit_scale"))
    return {name: value for iteration in range(fixture.integer("cfg_num_iterations"))
            for name, value in _iterate(fixture, f"it{iteration}_", learned, optimiser, objective).items()}


def _iterate(fixture: Fixture, prefix: str, learned: Learned, optimiser: OuterOptimiser,
             objective: StudentLoss) -> dict[str, Tensor]:
    student = _student(fixture)
    outputs = recorded_state("before_", learned)
    steps = recorded_steps(fixture, prefix)
    once = Pixels(learned.images, torch.cat([step.indices for step in steps]).unique())
    data = SyntheticData(once.features(), learned.texts, learned.similarity)
    result = unrolled_gradient(data, learned.rates, recorded_segment(fixture, prefix), steps, student, objective,
                               NORMALISERS["separate"])
    thetas = result.trace.thetas[:-1]
    seen = [look_at(step, theta, data, student, objective) for step, theta in zip(steps, thetas, strict=True)]
    losses, logits, slopes = zip(*seen, strict=True)
    outputs |= {"step_loss": torch.stack(losses), "step_logits": torch.stack(logits),
                "grand_loss": result.losses.img + result.losses.txt}
    for side in PerModality._fields:
        outputs[f"{side}_theta"] = torch.stack([getattr(theta, side) for theta in thetas])
        outputs[f"{side}_inner_grad"] = torch.stack([getattr(slope, side) for slope in slopes])
    outputs |= outer_step("", once, result, learned, optimiser)
    return {prefix + name: value for name, value in outputs.items()}


# Students.


def replay_student(fixture: Fixture) -> dict[str, Tensor]:
    """Train the recorded student on the recorded batches; score it once, at the end."""
    student, lr = _student(fixture), fixture.number("cfg_lr")
    recipe = Recipe(lr, lr, fixture.number("cfg_momentum"), fixture.number("cfg_weight_decay"), "infonce",
                    fixture.number("cfg_temperature"), decay_from=None)
    order, size = fixture.tensor("order"), fixture.integer("cfg_batch_size")
    drawn = [(epoch, rows, _masks(fixture, f"e{epoch}_b{number}_")) for epoch, order_of in enumerate(order)
             for number, rows in enumerate(order_of.split(size))]
    batches = [_batch(fixture, rows) for _, rows, _ in drawn]
    initial = PerModality(fixture.tensor("init_img_flat")[None], fixture.tensor("init_txt_flat")[None])
    heads, losses = [initial], list[Tensor]()

    def record(step: int, trained: Callable[[], PerModality], loss: Tensor) -> None:
        heads.append(per_modality(Tensor.clone, trained()))
        losses.append(loss[0])

    # To the engine every batch is an epoch: nothing of the recipe changes with the epochs.
    train_on(([batch] for batch in batches), initial, student, recipe, record, lambda step: lambda num: drawn[step][2])
    own = torch.tensor([epoch for epoch, _, _ in drawn])
    accuracies = [_accuracy(batch, before, student, masks, recipe)
                  for batch, before, (_, _, masks) in zip(batches, heads, drawn, strict=False)]
    leaves = per_modality(lambda value: value.clone().requires_grad_(), initial)
    first = torch.autograd.grad(batch_losses(batches[0], leaves, student, recipe, drawn[0][2]).sum(), leaves)
    ends = [int((own <= epoch).sum()) for epoch in range(len(order))]
    outputs = {"batch_loss": torch.stack(losses).view(len(order), -1), "img_first_grad": first[0][0],
               "txt_first_grad": first[1][0], "lr_per_epoch": torch.full((len(order), 2), lr, dtype=torch.float64),
               "img_after_epoch": torch.stack([heads[end].img[0] for end in ends]),
               "txt_after_epoch": torch.stack([heads[end].txt[0] for end in ends])}
    for name, values in (("mean_loss_per_epoch", losses), ("accuracy_per_epoch", accuracies)):
        outputs[name] = torch.stack([_weighted_mean([
            (len(rows), value) for (epoch, rows, _), value in zip(drawn, values, strict=True) if epoch == number])
            for number in range(len(order))])
    return outputs | _scored(fixture, per_modality(lambda value: value[0], heads[-1]), student, recipe)


def _batch(fixture: Fixture, rows: Tensor) -> StudentBatch:
    images, texts = (fixture.tensor(name)[rows] for name in ("syn_images", "syn_texts"))
    return StudentBatch(images[None], texts[None], torch.eye(len(rows), dtype=fixture.precision)[None])


def _masks(fixture: Fixture, prefix: str) -> Masks:
    name = f"{prefix}text_kept"
    return Masks(None, fixture.tensor(name)[None] if name in fixture else None)


def _accuracy(batch: StudentBatch, heads: PerModality, student: TwoTower, masks: Masks, recipe: Recipe) -> Tensor:
    """Share of a batch whose own partner has the highest logit, averaged over both directions."""
    model = student.dropping(Masks(None, None if masks.txt is None else masks.txt[0]))
    logits = cosine_logits(model.embed_images(batch.images[0], heads.img[0]), model.text(batch.texts[0], heads.txt[0]),
                           recipe.temperature)
    own = torch.arange(len(logits))
    return torch.stack([(logits.argmax(dim=dim) == own).double().mean() for dim in (0, 1)]).mean()


def _weighted_mean(values: list[tuple[int, Tensor]]) -> Tensor:
    return torch.stack([size * value for size, value in values]).sum() / sum(size for size, _ in values)


def _scored(fixture: Fixture, heads: PerModality, student: TwoTower, recipe: Recipe) -> dict[str, Tensor]:
    scores = cosine_logits(student.embed_images(fixture.tensor("test_images"), heads.img),
                           student.text(fixture.tensor("test_text_embeddings"), heads.txt), recipe.temperature)
    recalls = published_names(retrieval_recalls(scores, fixture.tensor("txt2img")))
    outputs = {f"result_{name}": torch.tensor(value, dtype=torch.float64) for name, value in recalls.items()}
    return outputs | {"final_scores_image_to_text": keep_candidates(scores, KEPT_CANDIDATES),
                      "final_scores_text_to_image": keep_candidates(scores.mT, KEPT_CANDIDATES)}


def is_of_student(name: str) -> bool:
    """Whether an array of a recorded student is an output."""
    return (name.endswith(("_per_epoch", "_after_epoch", "_first_grad")) or name == "batch_loss"
            or name.startswith(("final_scores_", "result_")))
