"""Losses on hand-made cases, and the soft similarities (the recordings in `tests/parity` cover the rest)."""

import math

import pytest
import torch

from repblend.matching.losses import LOSSES, at_targets, cosine_logits
from repblend.matching.similarity import FullSimilarity, IdentitySimilarity, LowRankSimilarity


def test_logits_are_cosines_over_the_temperature_with_images_as_rows() -> None:
    images, texts = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]]), torch.tensor([[5.0, 0.0], [0.0, -1.0]])
    half = math.sqrt(0.5)
    torch.testing.assert_close(cosine_logits(images, texts, 0.5),
                               torch.tensor([[2.0, 0.0], [0.0, -2.0], [2 * half, -2 * half]]))


@pytest.mark.parametrize("loss", ["infonce", "cwcl"])
def test_equal_logits_with_the_identity_cost_the_logarithm_of_the_batch(loss: str) -> None:
    value = LOSSES[loss](torch.zeros(5, 5, dtype=torch.float64), torch.eye(5, dtype=torch.float64))
    assert value.item() == pytest.approx(math.log(5), rel=1e-5)


@pytest.mark.parametrize("loss", ["wbce", "bce"])
def test_equal_logits_cost_one_bit_in_nats(loss: str) -> None:
    value = LOSSES[loss](torch.zeros(4, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    assert value.item() == pytest.approx(math.log(2), rel=1e-5)


def test_weighted_bce_gives_positives_and_negatives_the_same_weight() -> None:
    logits = torch.full((4, 4), -2.0, dtype=torch.float64)
    miss, hit = math.log(1 + math.exp(2)), math.log(1 + math.exp(-2))
    assert LOSSES["wbce"](logits, torch.eye(4, dtype=torch.float64)).item() == pytest.approx((miss + hit) / 2, rel=1e-4)


@pytest.mark.parametrize("shared", [False, True], ids=["own targets", "shared targets"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_slopes_and_their_derivatives_are_those_of_autograd(loss: str, shared: bool) -> None:
    draws = torch.Generator().manual_seed(0)
    logits = (6 * torch.randn(3, 5, 5, generator=draws, dtype=torch.float64)).requires_grad_()
    targets = torch.rand(*(() if shared else (3,)), 5, 5, generator=draws, dtype=torch.float64).requires_grad_()
    (expected,) = torch.autograd.grad(LOSSES[loss](logits, targets).sum(), logits, create_graph=True)
    found = at_targets(LOSSES[loss], targets).slope(logits)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    direction = torch.randn(3, 5, 5, generator=draws, dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad((each * direction).sum(), [logits, targets]) for each in (found, expected)),
                    strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    plain = at_targets(LOSSES[loss], targets.detach()).slope(logits.detach())
    torch.testing.assert_close(plain, expected.detach(), rtol=1e-9, atol=1e-12)
    assert not plain.requires_grad
    value, slope = at_targets(LOSSES[loss], targets.detach()).value_and_slope(logits.detach())
    assert torch.equal(value, LOSSES[loss](logits, targets)) and torch.equal(slope, plain)


def test_bce_refuses_targets_outside_the_unit_interval() -> None:
    with pytest.raises(ValueError, match="needs targets within"):
        LOSSES["bce"](torch.zeros(2, 2), torch.tensor([[1.2, 0.0], [0.0, 1.0]]))


def test_low_rank_similarity_follows_its_formula() -> None:
    similarity = LowRankSimilarity(torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
                                   torch.tensor([[5.0, 6.0], [7.0, 8.0]]), alpha=3.0)
    expected = torch.tensor([[1.0, 0.0], [0.0, 2.0]]) + 1.5 * torch.tensor([[17.0, 23.0], [39.0, 53.0]])
    torch.testing.assert_close(similarity.matrix(), expected)


@pytest.mark.parametrize("similarity", [
    LowRankSimilarity(torch.rand(6, generator=torch.Generator().manual_seed(0)),
                      torch.rand(6, 2, generator=torch.Generator().manual_seed(1)),
                      torch.rand(6, 2, generator=torch.Generator().manual_seed(2)), 1.0),
    FullSimilarity(torch.rand(6, 6, generator=torch.Generator().manual_seed(3))),
    IdentitySimilarity(6),
], ids=["low-rank", "full", "identity"])
def test_a_batch_is_its_rows_and_columns_of_the_whole(similarity: object) -> None:
    rows = torch.tensor([4, 0, 5])
    torch.testing.assert_close(similarity.batch(rows), similarity.matrix()[rows][:, rows])
    torch.testing.assert_close(similarity.rows(rows).matrix(), similarity.batch(rows))
    torch.testing.assert_close(similarity.with_tensors(similarity.tensors()).matrix(), similarity.matrix())


def test_similarities_start_as_the_identity() -> None:
    start = LowRankSimilarity.identity(5, 3, 2.0, torch.Generator().manual_seed(0))
    assert torch.equal(start.matrix(), torch.eye(5)) and start.left.abs().min() > 0
    assert torch.equal(FullSimilarity.identity(5).matrix(), torch.eye(5))
