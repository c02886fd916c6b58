"""Forgetting against brute-force twins: counts, choice, correctness inside a batch, and a whole training."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from repblend.coresets.candidates import candidate_pairs
from repblend.coresets.forgetting import forgetting, forgetting_counts, mutual_first, record_correctness
from repblend.data.features import Features, SplitFeatures
from repblend.encoders.heads import HeadSpec, init_head
from repblend.evaluation.protocol import HeadPair
from repblend.experts.training import TrainingPairs, draw_epoch, train_expert
from repblend.matching.step import PerModality
from repblend.params import WarmUp
from repblend.stages import select

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


def test_a_budget_beyond_the_images_is_refused() -> None:
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
    params = SimpleNamespace(seed=0, heads=SimpleNamespace(width=5, dropout=0.0),
                             select=SimpleNamespace(warm_up=warm_up, forgetting_epochs=6))
    candidates = candidate_pairs(pairs.image_index, 0)
    chosen = select.CORESETS["forgetting"](candidates, 7, features, params)
    counts = select._times_forgotten(features, warm_up, 6, HeadPair.of_widths(*features.widths, 5), 0)
    assert len(set(chosen)) == 7 and set(chosen) <= set(candidates.tolist())
    assert sorted(counts[chosen].tolist()) == counts[chosen].tolist() == sorted(counts[candidates].tolist())[:7]
    assert chosen[:3] == select.CORESETS["forgetting"](candidates, 3, features, params)
