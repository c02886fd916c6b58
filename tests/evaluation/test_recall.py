"""Recall against a slow obvious twin, on ties, on NaN, and against chance by simulation."""

import math

import pytest
import torch
from torch import Tensor

from repblend.evaluation.recall import MEAN_RECALL, RECALLS, TOP_K, chance_recalls, retrieval_recalls

KEYS = (*RECALLS, MEAN_RECALL)


def slow_recalls(scores: Tensor, owners: Tensor) -> dict[str, float]:
    """From the definition, one query at a time; a wrong candidate of the same score is ranked ahead."""
    hits = {key: 0 for key in RECALLS}
    num_images, num_texts = scores.shape
    for text in range(num_texts):
        own = int(owners[text])
        ahead = sum(bool(scores[image, text] >= scores[own, text]) for image in range(num_images) if image != own)
        for k in TOP_K:
            hits[f"ir_at_{k}"] += ahead < k
    for image in range(num_images):
        best = max(scores[image, text].item() for text in range(num_texts) if owners[text] == image)
        ahead = sum(scores[image, text].item() >= best for text in range(num_texts) if owners[text] != image)
        for k in TOP_K:
            hits[f"tr_at_{k}"] += ahead < k
    found = {key: 100 * count / (num_texts if key.startswith("ir") else num_images) for key, count in hits.items()}
    return found | {MEAN_RECALL: sum(found.values()) / 6}


@pytest.mark.parametrize("captions", [[1] * 12, [5] * 12, [1, 4, 2, 7, 1, 1, 3, 2, 9, 1, 2, 5]])
@pytest.mark.parametrize("levels", [None, 4])
def test_recalls_equal_the_slow_twin(captions: list[int], levels: int | None) -> None:
    draws = torch.Generator().manual_seed(sum(captions))
    owners = torch.arange(12).repeat_interleave(torch.tensor(captions))[torch.randperm(sum(captions), generator=draws)]
    scores = torch.randn(12, len(owners), generator=draws, dtype=torch.float64)
    scores[owners, torch.arange(len(owners))] += 0.7
    if levels:  # many ties
        scores = (scores * levels / 4).round()
    assert retrieval_recalls(scores, owners) == pytest.approx(slow_recalls(scores, owners), abs=1e-12)


def test_a_perfect_model_gets_everything_and_an_indifferent_one_nothing() -> None:
    owners = torch.arange(20).repeat_interleave(2)
    perfect = (torch.arange(20)[:, None] == owners).double()
    assert set(retrieval_recalls(perfect, owners).values()) == {100.0}
    assert set(retrieval_recalls(torch.zeros(20, 40), owners).values()) == {0.0}


def test_captions_of_one_image_do_not_compete_with_each_other() -> None:
    scores = torch.tensor([[3.0, 3.0, 3.0, 1.0], [0.0, 0.0, 0.0, 2.0]])
    assert set(retrieval_recalls(scores, torch.tensor([0, 0, 0, 1])).values()) == {100.0}


def test_directions_are_told_apart() -> None:
    scores = torch.tensor([[2.0, 1.0], [3.0, 4.0]])  # texts prefer image 1; images prefer their own text
    found = retrieval_recalls(scores, torch.tensor([0, 1]))
    assert (found["ir_at_1"], found["tr_at_1"]) == (50.0, 100.0)


def test_each_direction_may_have_scores_of_its_own() -> None:
    owners, good, bad = torch.arange(3), torch.eye(3), 1 - torch.eye(3)
    found = retrieval_recalls(good, owners, bad)
    assert (found["tr_at_1"], found["ir_at_1"]) == (100.0, 0.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_an_error_not_a_win(value: float) -> None:
    scores = torch.eye(4)
    scores[2, 1] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        retrieval_recalls(scores, torch.arange(4))


@pytest.mark.parametrize(("owners", "words"), [
    ([0, 1, 2], "disagree"), ([0, 1, 2, 4], "must lie in"), ([0, 1, 2, 2], "image 3 has none")])
def test_owners_that_do_not_fit_are_refused(owners: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        retrieval_recalls(torch.eye(4), torch.tensor(owners))


def test_chance_is_what_random_rankings_reach_on_average() -> None:
    owners = torch.tensor([0] * 5 + [1] + [2] * 3 + list(range(3, 25)))
    draws = torch.Generator().manual_seed(0)
    runs = [retrieval_recalls(torch.rand(25, len(owners), generator=draws), owners) for _ in range(1500)]
    expected = chance_recalls(owners)
    for key in KEYS:
        values = torch.tensor([run[key] for run in runs], dtype=torch.float64)
        error = values.std().item() / math.sqrt(len(runs))
        assert expected[key] == pytest.approx(values.mean().item(), abs=5 * error + 1e-9), key


def test_chance_of_a_set_smaller_than_k_is_certain() -> None:
    assert chance_recalls(torch.tensor([0, 1, 2]))["ir_at_10"] == 100.0
    assert chance_recalls(torch.tensor([0, 1, 2]))["tr_at_10"] == 100.0
