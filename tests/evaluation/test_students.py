"""Students: all seeds at once equal one at a time; schedules, batches, divergence; both protocols."""

import math
import statistics
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from repblend.data.features import SplitFeatures
from repblend.encoders.heads import HeadSpec
from repblend.evaluation import head_students
from repblend.evaluation.head_students import HeadStudents, train_head_students
from repblend.evaluation.protocol import (
    Evaluator,
    Scores,
    first_best,
    initial_heads,
    score,
    student_batches,
    student_masks,
    summarise,
)
from repblend.evaluation.recall import MEAN_RECALL, RECALLS
from repblend.evaluation.student import (
    Recipe,
    draw_student_batches,
    published_decay_start,
    train_students,
    train_students_on_real_pairs,
)
from repblend.evaluation.towers import HeadPair
from repblend.experts.training import ExpertBatch, TrainingPairs, draw_epoch, train_expert
from repblend.matching.losses import LOSSES, cosine_logits
from repblend.matching.student import Masks, PerModality
from repblend.schedules import scored_epochs

HEADS = HeadPair(HeadSpec(6, 5), HeadSpec(4, 5))
RECIPE = Recipe(0.05, 0.04, 0.9, 5e-4, "wbce", 0.07, decay_from=3)


def some_set(pairs: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    return (torch.randn(pairs, 6, generator=draws), torch.randn(pairs, 4, generator=draws),
            torch.eye(pairs) + 0.1 * torch.randn(pairs, pairs, generator=draws))


def train(num_seeds: int, batch_size: int, recipe: Recipe = RECIPE, epochs: int = 4) -> PerModality:
    images, texts, targets = some_set()
    batches = student_batches(0, num_seeds, len(texts), epochs, batch_size)
    return train_students(images, texts, targets, initial_heads(0, num_seeds, HEADS), batches, HEADS.student, recipe,
                          lambda *_: None)


@pytest.mark.parametrize("batch_size", [4, 100])
def test_seeds_trained_together_equal_seeds_trained_alone(batch_size: int) -> None:
    images, texts, targets = some_set()
    together = train(3, batch_size)
    initial, batches = initial_heads(0, 3, HEADS), student_batches(0, 3, len(texts), 4, batch_size)
    for seed in range(3):
        one = PerModality(*(value[seed:seed + 1] for value in initial))
        alone = train_students(images, texts, targets, one, batches[seed:seed + 1], HEADS.student, RECIPE,
                               lambda *_: None)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[seed], b[0], rtol=1e-4, atol=1e-6)


def test_more_seeds_do_not_change_the_first_ones() -> None:
    for few, many in zip(initial_heads(0, 2, HEADS), initial_heads(0, 5, HEADS), strict=True):
        assert torch.equal(few, many[:2])
    assert torch.equal(student_batches(0, 2, 9, 3, 4), student_batches(0, 5, 9, 3, 4)[:2])


def test_the_rate_falls_to_a_tenth_from_the_middle_on() -> None:
    """After the change the steps are those of a tenth of the rate: compare with a recipe that never changes."""
    assert [published_decay_start(epochs) for epochs in (100, 10, 20)] == [51, 6, 11]
    plain = Recipe(0.05, 0.04, 0.0, 0.0, "mse", 0.07, decay_from=0)
    tenth = Recipe(0.005, 0.004, 0.0, 0.0, "mse", 0.07, decay_from=None)
    for a, b in zip(train(1, 4, plain), train(1, 4, tenth), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_batches_of_an_epoch_are_firsts_of_their_own_reshuffles() -> None:
    batches = draw_student_batches(10, 30, 4, torch.Generator().manual_seed(0))
    assert batches.shape == (31, math.ceil(10 / 4), 4)
    assert all(len(set(row.tolist())) == 4 for row in batches.flatten(0, 1))
    overlaps = [len(set(a.tolist()) & set(b.tolist())) for a, b, _ in batches]
    assert max(overlaps) > 0  # not a partition
    assert torch.equal(draw_student_batches(3, 2, 4, torch.Generator()), torch.arange(3).expand(3, 1, 3))


def test_a_student_that_diverges_is_named() -> None:
    with pytest.raises(ValueError, match=r"student \d, epoch \d+: the loss is .*Lower the set's learning rates"):
        train(2, 100, Recipe(1e30, 1e30, 0.9, 0.0, "infonce", 0.07, None), epochs=20)


def test_students_learn_a_set_that_can_be_learned() -> None:
    draws = torch.Generator().manual_seed(1)
    latent = torch.randn(40, 4, generator=draws)
    images, texts = latent @ torch.randn(4, 6, generator=draws), latent @ torch.randn(4, 4, generator=draws)
    split = SplitFeatures(images[20:], texts[20:], torch.arange(20))
    evaluator = Evaluator({"val": split, "test": split}, HEADS, 0, 3, 60, 6, 128)
    scores = evaluator.evaluate_set(images[:20], texts[:20], torch.eye(20),
                                    Recipe(0.05, 0.05, 0.9, 0.0, "infonce", 0.07, None))
    curve = torch.tensor(scores.to_json()["curves"]["test_mean_recall"]).mean(0)
    assert curve[-1] > curve[0] + 15


def test_full_data_students_see_every_pair_and_view_and_learn() -> None:
    draws = torch.Generator().manual_seed(2)
    latent = torch.randn(40, 4, generator=draws)
    images, texts = latent @ torch.randn(4, 6, generator=draws), latent @ torch.randn(4, 4, generator=draws)
    split = SplitFeatures(images[30:], texts[30:], torch.arange(10))
    pairs = TrainingPairs(images[None, :30].repeat(2, 1, 1), texts[:30], torch.arange(30))
    evaluator = Evaluator({"val": split, "test": split}, HEADS, 0, 2, 20, 2, 10)
    scores = evaluator.evaluate_full_data(pairs, Recipe(0.05, 0.05, 0.9, 0.0, "infonce", 0.07, None))
    curves = scores.to_json()["curves"]
    assert all(seed[-1] > 20 for seed in curves["val_mean_recall"])


def test_scored_epochs_are_the_published_ones() -> None:
    assert scored_epochs(100, 5) == [0, 20, 40, 60, 80, 100]
    assert scored_epochs(10, 5) == [0, 2, 4, 6, 8, 10]
    assert scored_epochs(11, 5) == [0, 2, 4, 6, 8, 10, 11]
    assert scored_epochs(3, 5) == [0, 1, 2, 3]


def recalls(value: float) -> dict[str, float]:
    return dict.fromkeys((*RECALLS, MEAN_RECALL), value)


def test_protocols_choose_on_their_own_split_and_report_test() -> None:
    scores = Scores(HEADS.student, {}, [0, 20, 40])
    scores.recalls = {"val": [[recalls(1), recalls(5)], [recalls(3), recalls(5)], [recalls(2), recalls(4)]],
                      "test": [[recalls(10), recalls(20)], [recalls(11), recalls(21)], [recalls(19), recalls(25)]]}
    scores.splits = {"val": None, "test": None}
    found = scores.to_json()["protocols"]
    held_out = [(seed["epoch"], seed[MEAN_RECALL]) for seed in found["held-out"]["seeds"]]
    faithful = [(seed["epoch"], seed[MEAN_RECALL]) for seed in found["faithful"]["seeds"]]
    assert held_out == [(20, 11), (0, 20)]  # equally good on validation: the earlier
    assert faithful == [(40, 19), (40, 25)]
    assert found["held-out"]["mean"][MEAN_RECALL] == 15.5
    assert found["held-out"]["std"][MEAN_RECALL] == pytest.approx(statistics.stdev([11, 20]))
    assert (found["held-out"]["selected_on"], found["faithful"]["selected_on"]) == ("val", "test")
    assert scores.mean_of_best("val") == 4.0


def test_one_seed_has_no_deviation() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        summarise([recalls(1)])


def test_first_best_prefers_the_first_of_equals() -> None:
    assert first_best([1.0, 3.0, 3.0, 2.0]) == 1


# Student training against slow twins written from the published recipe.


PAIRS, EPOCHS = 9, 4


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def twin_set() -> tuple[Tensor, Tensor, Tensor]:
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
    images, texts, targets = twin_set()
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


TRAINERS = {"any towers": partial(train_students, student=HEADS.student),
            "heads": partial(train_head_students, heads=(HEADS.img, HEADS.txt))}
"""Both trainings of students on a set."""


@pytest.mark.parametrize("train", TRAINERS.values(), ids=TRAINERS)
@pytest.mark.parametrize("batch_size", [4, 100], ids=["minibatches", "whole set"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_students_equal_slow_ones_trained_one_at_a_time(loss: str, batch_size: int,
                                                        train: Callable[..., PerModality]) -> None:
    recipe = Recipe(0.02, 0.03, 0.9, 5e-3, loss, 0.07, decay_from=3)
    batches, initial = student_batches(0, 3, PAIRS, EPOCHS, batch_size), double_heads(3)
    seen: list[PerModality] = []
    train(*twin_set(), initial, batches, recipe=recipe,
          on_epoch=lambda _epoch, heads, _loss: seen.append(PerModality(*(head.clone() for head in heads()))))
    for seed in range(3):
        slow = slow_student(batches[seed], PerModality(*(value[seed] for value in initial)), recipe)
        for fast_heads, slow_heads in zip(seen, slow, strict=True):
            for a, b in zip(fast_heads, slow_heads, strict=True):
                torch.testing.assert_close(a[seed], b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", TRAINERS)
def test_students_drop_alone_what_they_drop_together(kind: str) -> None:
    """Stacked students with dropout equal experts of the same loss that drop the same units, trained one at a time."""
    heads = HeadPair(HeadSpec(6, 5, dropout=0.4), HeadSpec(4, 5, dropout=0.4))
    (images, texts, _), initial = twin_set(), double_heads(2)
    targets, batches = torch.eye(PAIRS).double(), student_batches(0, 2, PAIRS, EPOCHS, 4)
    recipe = Recipe(0.02, 0.02, 0.9, 5e-3, "infonce", 0.07, None)

    def draw_masks(epoch: int) -> Callable[[int], Masks]:
        return student_masks(0, 2, heads, epoch)

    train = {"any towers": partial(train_students, student=heads.student),
             "heads": partial(train_head_students, heads=(heads.img, heads.txt))}[kind]
    together = train(images, texts, targets, initial, batches, recipe=recipe, on_epoch=lambda *_: None,
                     draw_masks=draw_masks)
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


@pytest.mark.parametrize("train", TRAINERS.values(), ids=TRAINERS)
def test_one_seed_does_not_feel_the_others(train: Callable[..., PerModality]) -> None:
    """Another start for seed 1 changes nothing for seeds 0 and 2."""
    recipe, batches = Recipe(0.02, 0.03, 0.9, 5e-4, "wbce", 0.07, None), student_batches(0, 3, PAIRS, EPOCHS, 4)
    plain = double_heads(3)
    other = PerModality(*(value.clone() for value in plain))
    other.img[1] *= 3
    ends = [train(*twin_set(), start, batches, recipe=recipe, on_epoch=lambda *_: None)
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


@pytest.mark.parametrize("train", TRAINERS.values(), ids=TRAINERS)
def test_initial_heads_are_not_changed(train: Callable[..., PerModality]) -> None:
    initial = double_heads(2)
    train(*twin_set(), initial, student_batches(0, 2, PAIRS, 1, 4),
          recipe=Recipe(0.02, 0.03, 0.9, 5e-4, "wbce", 0.07, None), on_epoch=lambda *_: None)
    for value, again in zip(initial, double_heads(2), strict=True):
        assert torch.equal(value, again)


def test_the_reported_loss_is_the_mean_over_the_epochs_batches() -> None:
    """At a learning rate too small to move anything, that is the mean of the losses at the start."""
    images, texts, targets = twin_set()
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


@pytest.mark.parametrize("train", TRAINERS.values(), ids=TRAINERS)
def test_a_loss_that_is_no_number_stops_before_the_update(train: Callable[..., PerModality]) -> None:
    images, texts, targets = twin_set()
    images[3, 0] = math.nan
    live: list[PerModality] = []
    with pytest.raises(ValueError, match="student 0, epoch 0: the loss is nan"):
        train(images, texts, targets, double_heads(2), student_batches(0, 2, PAIRS, 2, 100),
              recipe=Recipe(0.02, 0.03, 0.9, 5e-4, "wbce", 0.07, None),
              on_epoch=lambda _e, heads, _l: live.append(heads()))
    assert live == []


def test_a_student_whose_scores_are_no_numbers_is_named() -> None:
    heads = double_heads(3)
    heads.txt[2, 0] = math.nan
    images, texts, _ = twin_set()
    with pytest.raises(ValueError, match="student 2: retrieval scores: found NaN"):
        score(heads, HEADS.student, SplitFeatures(images, texts, torch.arange(PAIRS)))


def test_students_are_scored_at_the_scored_epochs_and_no_others() -> None:
    images, texts, targets = twin_set()
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


@pytest.mark.parametrize("batch_size", [4, 100])
def test_embeddings_of_a_split_are_those_of_the_heads(batch_size: int) -> None:
    draws = torch.Generator().manual_seed(3)
    split = SplitFeatures(torch.randn(11, 6, generator=draws).double(), torch.randn(17, 4, generator=draws).double(),
                          torch.arange(17) % 11)
    epochs = []

    def compare(epoch: int, trained: HeadStudents, _losses: Tensor) -> None:
        heads = trained()
        for number, found in enumerate(trained.embed(split)):
            for side, rows, flat, tower in zip(found, (split.images, split.texts), heads,
                                               (HEADS.student.image, HEADS.student.text), strict=True):
                expected = nn.functional.normalize(tower(rows, flat[number]))
                torch.testing.assert_close(side, expected, rtol=1e-9, atol=1e-12)
        epochs.append(epoch)

    train_head_students(*twin_set(), double_heads(3), student_batches(0, 3, PAIRS, EPOCHS, batch_size),
                        (HEADS.img, HEADS.txt), Recipe(0.02, 0.03, 0.9, 5e-3, "wbce", 0.07, 3), compare)
    assert epochs == list(range(EPOCHS + 1))


@pytest.mark.parametrize("kept", [0, 2**25], ids=["of a large split", "of a small split"])
def test_students_in_training_are_scored_as_their_heads_are(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_students, "KEPT_OF_A_SPLIT", kept)
    images, texts, targets = twin_set()
    split = SplitFeatures(images, texts, torch.arange(PAIRS))
    scores, direct = (Scores(HEADS.student, {"val": split}, [0, 2, 4]) for _ in range(2))

    def look(epoch: int, trained: Callable[[], PerModality], losses: Tensor) -> None:
        scores.record(epoch, trained, losses)
        direct.record(epoch, lambda: trained(), losses)

    train_head_students(images, texts, targets, double_heads(2), student_batches(0, 2, PAIRS, EPOCHS, 4),
                        (HEADS.img, HEADS.txt), Recipe(0.05, 0.05, 0.9, 5e-4, "infonce", 0.07, 3), look)
    assert scores.recalls == direct.recalls and len(scores.recalls["val"]) == 3


@pytest.mark.parametrize("train", TRAINERS.values(), ids=TRAINERS)
def test_slices_leave_the_last_batch_of_an_epoch_short_and_weigh_it_by_its_length(
        train: Callable[..., PerModality]) -> None:
    batches = student_batches(0, 2, PAIRS, 3, 4, "slices")
    assert batches.shape == (2, 4, 3, 4) and (batches[:, :, -1, 1:] == -1).all()
    for epoch in batches.flatten(0, 1):
        rows = epoch.flatten()
        assert sorted(rows[rows >= 0].tolist()) == list(range(PAIRS))
    images, texts, _ = twin_set()
    targets, seen = torch.eye(PAIRS, dtype=images.dtype), []
    initial = double_heads(2)
    recipe = Recipe(0.0, 0.0, 0.0, 0.0, "infonce", 0.07, None)
    train(images, texts, targets, initial, batches, recipe=recipe, on_epoch=lambda _, heads, loss: seen.append(loss))
    for student, first in enumerate(batches[:, 0]):
        expected = 0.0
        for rows in (first[0], first[1], first[2, :1]):
            logits = cosine_logits(HEADS.student.image(images[rows], initial.img[student]),
                                   HEADS.student.text(texts[rows], initial.txt[student]), 0.07)
            expected += len(rows) / PAIRS * LOSSES["infonce"](logits, torch.eye(len(rows), dtype=images.dtype)).item()
        assert seen[0][student].item() == pytest.approx(expected, rel=1e-9)


def test_students_that_are_scored_once_are_scored_at_their_end() -> None:
    assert scored_epochs(50, 0) == [50]
