"""Coresets against brute-force twins and known configurations."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from repblend.coresets import (
    RealPairs,
    candidate_pairs,
    choose,
    forgetting,
    forgetting_counts,
    herding,
    joint_features,
    k_center,
    mutual_first,
    random_pairs,
    record_correctness,
)
from repblend.data.features import Features, SplitFeatures
from repblend.encoders.heads import HeadSpec, init_head
from repblend.evaluation.towers import HeadPair
from repblend.experts.training import TrainingPairs, draw_epoch, train_expert
from repblend.matching.student import PerModality
from repblend.params.evaluate import Select, WarmUp


def features(seed: int, rows: int = 14, width: int = 3) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_herding(rows: Tensor, count: int) -> list[int]:
    chosen: list[int] = []
    for size in range(1, count + 1):
        target = rows.mean(0) * size
        free = [row for row in range(len(rows)) if row not in chosen]
        chosen.append(min(free, key=lambda row: (torch.dist(rows[[*chosen, row]].sum(0), target).item(), row)))
    return chosen


def slow_k_center(rows: Tensor, count: int, first: int) -> list[int]:
    chosen = [first]
    while len(chosen) < count:
        free = [row for row in range(len(rows)) if row not in chosen]
        chosen.append(max(free, key=lambda row: (min(torch.dist(rows[row], rows[c]).item() for c in chosen), -row)))
    return chosen


@pytest.mark.parametrize("seed", range(6))
def test_herding_equals_its_definition(seed: int) -> None:
    assert herding(features(seed), 9) == slow_herding(features(seed), 9)


@pytest.mark.parametrize("seed", range(6))
def test_k_center_equals_its_definition(seed: int) -> None:
    assert k_center(features(seed), 9, first=seed) == slow_k_center(features(seed), 9, first=seed)


def test_herding_of_all_rows_reaches_their_mean_and_takes_each_once() -> None:
    assert sorted(herding(features(0), 14)) == list(range(14))


def test_k_center_goes_from_one_end_of_a_line_to_the_other_and_then_between() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0], [5.0], [10.0]])
    assert k_center(line, 4, first=0) == [0, 4, 3, 2]


def test_equal_rows_are_taken_in_order_and_once() -> None:
    assert herding(torch.ones(4, 2), 3) == [0, 1, 2]
    assert k_center(torch.ones(4, 2), 4, first=2) == [2, 0, 1, 3]


@pytest.mark.parametrize("choose", [
    lambda: herding(features(0), 15), lambda: k_center(features(0), 15, 0),
    lambda: random_pairs(torch.arange(14), 15, 0)], ids=["herding", "k-center", "random"])
def test_a_budget_beyond_the_images_is_refused(choose: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"at most 14 \(one pair per training image\), found 15"):
        choose()


OWNERS = torch.tensor([0, 0, 0, 1, 2, 2, 3])


def test_candidates_are_one_caption_of_each_image_in_order() -> None:
    for seed in range(20):
        assert OWNERS[candidate_pairs(OWNERS, seed)].tolist() == [0, 1, 2, 3]


def test_every_caption_of_an_image_is_as_likely() -> None:
    drawn = torch.stack([candidate_pairs(OWNERS, seed) for seed in range(3000)])
    assert torch.bincount(drawn[:, 0])[:3].tolist() == pytest.approx([1000] * 3, abs=110)
    assert torch.bincount(drawn[:, 2])[4:6].tolist() == pytest.approx([1500] * 2, abs=110)


def test_random_pairs_repeat_nothing_and_begin_with_the_smaller_draw() -> None:
    candidates = torch.arange(100, 150)
    large, small = random_pairs(candidates, 40, 3), random_pairs(candidates, 10, 3)
    assert len(set(large)) == 40 and set(large) <= set(candidates.tolist())
    assert large[:10] == small
    assert random_pairs(candidates, 10, 4) != small


def test_joint_features_are_both_unit_embeddings_side_by_side() -> None:
    heads = HeadPair(HeadSpec(3, 4), HeadSpec(5, 4))
    draws = torch.Generator().manual_seed(0)
    flat = PerModality(init_head(heads.img, draws), init_head(heads.txt, draws))
    images, texts = torch.randn(6, 3, generator=draws), torch.randn(6, 5, generator=draws)
    joint = joint_features(images, texts, flat, heads.student)
    assert joint.shape == (6, 8)
    torch.testing.assert_close(joint[:, :4], torch.nn.functional.normalize(heads.student.image(images, flat.img)))
    torch.testing.assert_close(joint[:, 4:], torch.nn.functional.normalize(heads.student.text(texts, flat.txt)))


# Forgetting against brute-force twins: counts, choice, correctness inside a batch, and a whole training.


HEADS = HeadPair(HeadSpec(6, 5), HeadSpec(4, 5))


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_counts(correct: list[list[bool]], seen: list[list[bool]]) -> list[float]:
    """Per pair: write down its history where it was drawn, and count every True that a False follows."""
    counts = []
    for pair in range(len(correct[0])):
        history = [correct[epoch][pair] for epoch in range(len(correct)) if seen[epoch][pair]]
        falls = sum(before and not after for before, after in itertools.pairwise(history))
        counts.append(float(falls) if True in history else math.inf)
    return counts


@pytest.mark.parametrize("seed", range(8))
def test_counts_equal_their_definition(seed: int) -> None:
    correct, seen = torch.rand(7, 60, generator=draws(seed)) < 0.4, torch.rand(7, 60, generator=draws(seed + 50)) < 0.8
    expected = slow_counts(correct.tolist(), seen.tolist())
    assert forgetting_counts(correct, seen).tolist() == expected
    assert math.inf in expected and len(set(expected)) >= 4


@pytest.mark.parametrize(("history", "count"), [
    ("++++", 0.0), ("----", math.inf), ("+-+-", 2.0), ("--++", 0.0), ("+..-", 1.0), ("+..+", 0.0), ("....", math.inf),
    ("-.+-", 1.0)])
def test_histories_that_can_be_counted_by_hand(history: str, count: float) -> None:
    correct = torch.tensor([[mark == "+"] for mark in history])
    seen = torch.tensor([[mark != "."] for mark in history])
    assert forgetting_counts(correct, seen).tolist() == [count]
    assert forgetting_counts(correct | ~seen, seen).tolist() == [count]  # what an undrawn pair says is not heard


def test_the_least_forgotten_come_first_the_never_learned_last_and_equals_in_the_order_given() -> None:
    counts = torch.tensor([1.0, math.inf, 0.0, 2.0, 0.0, 1.0])
    order = torch.tensor([4, 5, 1, 3, 0, 2])
    assert forgetting(counts, order, 6) == [4, 2, 5, 0, 3, 1]
    assert forgetting(counts, order, 3) == [4, 2, 5]


@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_a_sort_by_count_and_then_by_place_in_the_order(seed: int) -> None:
    counts = torch.randint(4, (40,), generator=draws(seed)).double()
    counts[counts == 3] = torch.inf
    order = torch.randperm(40, generator=draws(seed + 9)).tolist()
    expected = sorted(range(40), key=lambda row: (counts[row].item(), order.index(row)))
    assert forgetting(counts, torch.tensor(order), 40) == expected


def test_a_budget_beyond_the_images_is_refused_by_forgetting() -> None:
    with pytest.raises(ValueError, match=r"at most 3 \(one pair per training image\), found 4"):
        forgetting(torch.zeros(3), torch.arange(3), 4)


def slow_mutual_first(scores: Tensor) -> list[bool]:
    size = len(scores)
    return [all(scores[b, b] > scores[b, other] and scores[b, b] > scores[other, b]
                for other in range(size) if other != b) for b in range(size)]


@pytest.mark.parametrize("seed", range(6))
def test_correct_means_first_in_both_directions_and_ties_lose(seed: int) -> None:
    scores = torch.randint(6, (12, 12), generator=draws(seed)).double() + 2 * torch.eye(12)
    assert mutual_first(scores).tolist() == slow_mutual_first(scores)
    assert not mutual_first(torch.ones(3, 3)).any()
    assert mutual_first(torch.eye(3)).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_an_error(value: float) -> None:
    scores = torch.eye(3)
    scores[0, 2] = value
    with pytest.raises(ValueError, match="the heads diverged"):
        mutual_first(scores)


def some_pairs() -> TrainingPairs:
    owners = torch.arange(11).repeat_interleave(2)[:21]
    return TrainingPairs(torch.randn(3, 11, 6, generator=draws(1)), torch.randn(21, 4, generator=draws(2)), owners)


def test_a_training_is_recorded_from_the_heads_before_each_step() -> None:
    """The twin trains with autograd and plain subtraction, and looks at every pair of every batch by itself."""
    pairs, lr = some_pairs(), 0.3
    initial = PerModality(init_head(HEADS.img, draws(3)), init_head(HEADS.txt, draws(4)))
    epochs = [draw_epoch(21, 3, 8, draws(10 + epoch)) for epoch in range(4)]
    draws_of_all = itertools.chain.from_iterable(epochs)
    steps = train_expert(pairs, initial, draws_of_all, HEADS.student, lr, 0.0, 0.0, 0.07)
    correct, seen = record_correctness(pairs, epochs, [initial, *(after for _, after in steps)], HEADS.student)

    flat = [value.clone().requires_grad_() for value in initial]
    slow_correct, slow_seen = torch.zeros(4, 21, dtype=torch.bool), torch.zeros(4, 21, dtype=torch.bool)
    for epoch, batches in enumerate(epochs):
        for draw in batches:
            images = torch.nn.functional.normalize(HEADS.student.image(pairs.batch(draw)[0], flat[0]))
            texts = torch.nn.functional.normalize(HEADS.student.text(pairs.batch(draw)[1], flat[1]))
            scores, own = images @ texts.T, torch.arange(len(images))
            for pair, right in zip(draw.pairs.tolist(), slow_mutual_first(scores), strict=True):
                slow_correct[epoch, pair], slow_seen[epoch, pair] = right, True
            cross_entropy = torch.nn.functional.cross_entropy
            loss = (cross_entropy(scores / 0.07, own) + cross_entropy(scores.T / 0.07, own)) / 2
            with torch.no_grad():
                for value, grad in zip(flat, torch.autograd.grad(loss, flat), strict=True):
                    value -= lr * grad
    assert torch.equal(correct, slow_correct) and torch.equal(seen, slow_seen)
    assert seen.sum(1).tolist() == [16] * 4  # a last partial batch is dropped
    assert correct.any() and not (correct | ~seen).all()


def test_the_stage_chooses_candidates_forgotten_least() -> None:
    pairs = some_pairs()
    split = SplitFeatures(pairs.views[0], pairs.texts[:11], torch.arange(11))
    features = Features(pairs.views, pairs.texts, pairs.image_index, split, split)
    warm_up = WarmUp(epochs=2, batch_size=8, lr=0.3, temperature=0.07)
    settings = Select(warm_up=warm_up, forgetting_epochs=6, loss="infonce", lr_img={}, lr_txt={})
    real = RealPairs(features, HeadPair.of_widths(*features.widths, 5), settings, seed=0)
    candidates = candidate_pairs(pairs.image_index, 0)
    chosen, counts = choose("forgetting", 7, real), dict(zip(candidates.tolist(), real.times_forgotten().tolist(),
                                                             strict=True))
    assert len(set(chosen)) == 7 and set(chosen) <= set(counts)
    assert [counts[row] for row in chosen] == sorted(counts.values())[:7]
    assert chosen[:3] == choose("forgetting", 3, real)
