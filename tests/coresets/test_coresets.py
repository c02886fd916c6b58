"""Coresets against brute-force twins and known configurations."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from repblend.coresets.candidates import candidate_pairs
from repblend.coresets.herding import herding
from repblend.coresets.joint import joint_features
from repblend.coresets.k_center import k_center
from repblend.coresets.random import random_pairs
from repblend.encoders.heads import HeadSpec, init_head
from repblend.evaluation.protocol import HeadPair
from repblend.matching.step import PerModality


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
