"""Student training against slow twins written from the published recipe."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from repblend.data.features import SplitFeatures
from repblend.encoders.heads import HeadSpec
from repblend.evaluation.protocol import HeadPair, Scores, initial_heads, score, student_batches, student_masks
from repblend.evaluation.student import Recipe, draw_student_batches, train_students, train_students_on_real_pairs
from repblend.experts.training import ExpertBatch, TrainingPairs, draw_epoch, train_expert
from repblend.matching.losses import LOSSES
from repblend.matching.step import Masks, PerModality

HEADS = HeadPair(HeadSpec(6, 5), HeadSpec(4, 5))
PAIRS, EPOCHS = 9, 4


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_set() -> tuple[Tensor, Tensor, Tensor]:
    source = draws(0)
    targets = (torch.eye(PAIRS) + 0.1 * torch.rand(PAIRS, PAIRS, generator=source)).clamp(0, 1)
    return (torch.randn(PAIRS, 6, generator=source).double(), torch.randn(PAIRS, 4, generator=source).double(),
            targets.double())


def double_heads(num_seeds: int) -> PerModality:
    return PerModality(*(value.double() for value in initial_heads(0, num_seeds, HEADS)))


class Head(nn.Module):
    """The published projection head from torch's own layers."""

    def __init__(self, flat: Tensor, d_in: int, d: int) -> None:
        super().__init__()
        self.projection, self.fc, self.layer_norm = nn.Linear(d_in, d), nn.Linear(d, d), nn.LayerNorm(d)
        self.double()
        nn.utils.vector_to_parameters(flat, self.parameters())

    def forward(self, x: Tensor) -> Tensor:
        projected = self.projection(x)
        return self.layer_norm(self.fc(nn.functional.gelu(projected)) + projected)


def slow_student(batches: Tensor, initial: PerModality, recipe: Recipe) -> list[PerModality]:
    """One student after every epoch: nn.Modules, and SGD written out."""
    images, texts, targets = some_set()
    heads = [Head(flat, size, 5) for flat, size in zip(initial, (6, 4), strict=True)]
    rates = {p: rate for head, rate in zip(heads, (recipe.lr_img, recipe.lr_txt), strict=True)
             for p in head.parameters()}
    velocity, history = {}, []
    for epoch, rows in enumerate(batches):
        factor = 0.1 if recipe.decay_from is not None and epoch >= recipe.decay_from else 1.0
        for row in rows:
            u, w = (nn.functional.normalize(head(x[row])) for head, x in zip(heads, (images, texts), strict=True))
            loss = LOSSES[recipe.loss](u @ w.T / recipe.temperature, targets[row][:, row])
            for p, gradient in zip(rates, torch.autograd.grad(loss, list(rates)), strict=True):
                step = gradient + recipe.weight_decay * p.detach()
                velocity[p] = recipe.momentum * velocity[p] + step if p in velocity else step
                p.data -= rates[p] * factor * velocity[p]
        history.append(PerModality(*(nn.utils.parameters_to_vector(h.parameters()).detach() for h in heads)))
    return history


@pytest.mark.parametrize("batch_size", [4, 100], ids=["minibatches", "whole set"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_students_equal_slow_ones_trained_one_at_a_time(loss: str, batch_size: int) -> None:
    recipe = Recipe(0.02, 0.03, 0.9, 5e-3, loss, 0.07, decay_from=3)
    batches, initial = student_batches(0, 3, PAIRS, EPOCHS, batch_size), double_heads(3)
    seen: list[PerModality] = []
    train_students(*some_set(), initial, batches, HEADS.student, recipe,
                   lambda _epoch, heads, _loss: seen.append(PerModality(*(head.clone() for head in heads))))
    for seed in range(3):
        slow = slow_student(batches[seed], PerModality(*(value[seed] for value in initial)), recipe)
        for fast_heads, slow_heads in zip(seen, slow, strict=True):
            for a, b in zip(fast_heads, slow_heads, strict=True):
                torch.testing.assert_close(a[seed], b, rtol=1e-9, atol=1e-9)


def test_students_drop_alone_what_they_drop_together() -> None:
    """Stacked students with dropout equal experts of the same loss that drop the same units, trained one at a time."""
    heads = HeadPair(HeadSpec(6, 5, dropout=0.4), HeadSpec(4, 5, dropout=0.4))
    (images, texts, _), initial = some_set(), double_heads(2)
    targets, batches = torch.eye(PAIRS).double(), student_batches(0, 2, PAIRS, EPOCHS, 4)
    recipe = Recipe(0.02, 0.02, 0.9, 5e-3, "infonce", 0.07, None)

    def draw_masks(epoch: int) -> Callable[[int], Masks]:
        return student_masks(0, 2, heads, epoch)

    together = train_students(images, texts, targets, initial, batches, heads.student, recipe, lambda *_: None,
                              draw_masks)
    pairs = TrainingPairs(images[None], texts, torch.arange(PAIRS))
    for seed in range(2):
        draws_of_seed = []
        for epoch, rows in enumerate(batches[seed]):
            masks = draw_masks(epoch)
            for row in rows:
                kept = masks(len(row))
                draws_of_seed.append(ExpertBatch(row, torch.zeros_like(row), Masks(kept.img[seed], kept.txt[seed])))
        *_, (_, alone) = train_expert(pairs, PerModality(*(value[seed] for value in initial)), iter(draws_of_seed),
                                      heads.student, 0.02, 0.9, 5e-3, 0.07)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[seed], b, rtol=1e-9, atol=1e-9)


def test_one_seed_does_not_feel_the_others() -> None:
    """Another start for seed 1 changes nothing for seeds 0 and 2."""
    recipe, batches = Recipe(0.02, 0.03, 0.9, 5e-4, "wbce", 0.07, None), student_batches(0, 3, PAIRS, EPOCHS, 4)
    plain = double_heads(3)
    other = PerModality(*(value.clone() for value in plain))
    other.img[1] *= 3
    ends = [train_students(*some_set(), start, batches, HEADS.student, recipe, lambda *_: None)
            for start in (plain, other)]
    for a, b in zip(*ends, strict=True):
        assert torch.equal(a[[0, 2]], b[[0, 2]])
    assert not torch.equal(ends[0].img[1], ends[1].img[1])


def test_every_student_has_its_own_start_and_order() -> None:
    heads, batches = initial_heads(0, 3, HEADS), student_batches(0, 3, 20, 5, 4)
    for values in (*heads, batches):
        assert not any(torch.equal(values[a], values[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    for again, values in zip((*initial_heads(1, 3, HEADS), student_batches(1, 3, 20, 5, 4)), (*heads, batches),
                             strict=True):
        assert not torch.equal(again, values)


def test_a_batch_is_the_first_entries_of_a_reshuffle() -> None:
    batches, shuffles = draw_student_batches(10, 2, 4, draws(7)), draws(7)
    for row in batches.flatten(0, 1):
        assert torch.equal(row, torch.randperm(10, generator=shuffles)[:4])


def test_a_partition_shows_every_pair_in_every_epoch() -> None:
    batches = student_batches(0, 2, 10, 30, 4, "partition")
    assert batches.shape == (2, 31, 3, 4)
    for epoch in batches.flatten(0, 1):
        assert epoch.unique().tolist() == list(range(10)) and len(epoch[:2].unique()) == 8
        assert all(len(batch.unique()) == 4 for batch in epoch)
    subsets = student_batches(0, 2, 10, 30, 4)
    assert any(len(epoch.unique()) < 10 for epoch in subsets.flatten(0, 1))
    assert torch.equal(student_batches(0, 2, 3, 5, 4, "partition"), student_batches(0, 2, 3, 5, 4))


def test_initial_heads_are_not_changed() -> None:
    initial = double_heads(2)
    train_students(*some_set(), initial, student_batches(0, 2, PAIRS, 1, 4), HEADS.student,
                   Recipe(0.02, 0.03, 0.9, 5e-4, "wbce", 0.07, None), lambda *_: None)
    for value, again in zip(initial, double_heads(2), strict=True):
        assert torch.equal(value, again)


def test_the_reported_loss_is_the_mean_over_the_epochs_batches() -> None:
    """At a learning rate too small to move anything, that is the mean of the losses at the start."""
    images, texts, targets = some_set()
    batches, initial, losses = student_batches(0, 1, PAIRS, 0, 4), double_heads(1), []
    train_students(images, texts, targets, initial, batches, HEADS.student,
                   Recipe(1e-30, 1e-30, 0.0, 0.0, "mse", 0.07, None), lambda _e, _h, loss: losses.append(loss))
    heads = [Head(flat[0], size, 5) for flat, size in zip(initial, (6, 4), strict=True)]
    expected = []
    for row in batches[0, 0]:
        u, w = (nn.functional.normalize(head(x[row])) for head, x in zip(heads, (images, texts), strict=True))
        expected.append((((u @ w.T / 0.07).sigmoid() - targets[row][:, row]) ** 2).mean().item())
    assert len(expected) == 3 and losses[0].tolist() == pytest.approx([sum(expected) / 3], rel=1e-12)


def test_full_data_students_equal_experts_trained_one_at_a_time() -> None:
    source = draws(4)
    pairs = TrainingPairs(torch.randn(3, 7, 6, generator=source), torch.randn(10, 4, generator=source),
                          torch.tensor([0, 0, 1, 2, 3, 3, 4, 5, 6, 6]))
    epochs = [[draw_epoch(10, 3, 4, draws(10 * epoch + seed)) for seed in range(2)]
              for epoch in range(3)]
    initial = initial_heads(0, 2, HEADS)
    together = train_students_on_real_pairs(pairs, initial, epochs, HEADS.student,
                                            Recipe(0.03, 0.03, 0.9, 5e-4, "infonce", 0.07, None), lambda *_: None)
    for seed in range(2):
        batches = (batch for epoch in epochs for batch in epoch[seed])
        steps = train_expert(pairs, PerModality(*(value[seed] for value in initial)), batches, HEADS.student,
                             0.03, 0.9, 5e-4, 0.07)
        *_, (_, alone) = steps
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[seed], b, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_no_number_stops_before_the_update() -> None:
    images, texts, targets = some_set()
    images[3, 0] = math.nan
    live: list[PerModality] = []
    with pytest.raises(ValueError, match="student 0, epoch 0: the loss is nan"):
        train_students(images, texts, targets, double_heads(2), student_batches(0, 2, PAIRS, 2, 100), HEADS.student,
                       Recipe(0.02, 0.03, 0.9, 5e-4, "wbce", 0.07, None), lambda _e, heads, _l: live.append(heads))
    assert live == []


def test_a_student_whose_scores_are_no_numbers_is_named() -> None:
    heads = double_heads(3)
    heads.txt[2, 0] = math.nan
    images, texts, _ = some_set()
    with pytest.raises(ValueError, match="student 2: retrieval scores: found NaN"):
        score(heads, HEADS.student, SplitFeatures(images, texts, torch.arange(PAIRS)))


def test_students_are_scored_at_the_scored_epochs_and_no_others() -> None:
    images, texts, targets = some_set()
    split = SplitFeatures(images, texts, torch.arange(PAIRS))
    scores, initial = Scores(HEADS.student, {"val": split, "test": split}, [0, 2, 4]), double_heads(2)
    recipe, batches = Recipe(0.05, 0.05, 0.9, 5e-4, "infonce", 0.07, 3), student_batches(0, 2, PAIRS, EPOCHS, 4)
    train_students(images, texts, targets, initial, batches, HEADS.student, recipe, scores.record)
    expected = []
    for last in (0, 2, 4):  # a training that ends there, scored at its end
        end = train_students(images, texts, targets, initial, batches[:, :last + 1], HEADS.student, recipe,
                             lambda *_: None)
        expected.append(score(end, HEADS.student, split))
    assert scores.recalls == {"val": expected, "test": expected}
