"""Matching gradients against their definitions: finite differences, and a brute-force truncated gradient."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.two_pass import two_pass_gradient
from repblend.encoders.heads import HeadSpec, apply_head, init_head
from repblend.evaluation.towers import HeadPair
from repblend.matching.blending import draw_blend
from repblend.matching.distillation import KeptGraph
from repblend.matching.gradient import (
    GRADIENTS,
    NORMALISERS,
    SECOND_ORDER,
    MatchingGradient,
    Segment,
    constant_memory_gradient,
)
from repblend.matching.losses import LOSSES
from repblend.matching.similarity import FullSimilarity, LowRankSimilarity
from repblend.matching.student import (
    NO_DROPOUT,
    InnerStep,
    PerModality,
    StudentLoss,
    SyntheticData,
    TwoTower,
    draw_batches,
    inner_loss,
)

IMAGE, TEXT = HeadSpec(5, 4, dropout=0.4), HeadSpec(3, 4, dropout=0.4)
HEADS = HeadPair(IMAGE, TEXT)
RATES = PerModality(torch.tensor(0.05, dtype=torch.float64), torch.tensor(0.03, dtype=torch.float64))


class Case:
    """A small matching problem in float64."""

    def __init__(self, loss: str, full: bool = False, dropout: str | None = None) -> None:
        generator = torch.Generator().manual_seed(3)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        similarity = FullSimilarity(normal(6, 6)) if full else LowRankSimilarity(normal(6), normal(6, 2), normal(6, 2),
                                                                                 1.5)
        self.data = SyntheticData(normal(6, 5), normal(6, 3), similarity)
        start, target = (PerModality(init_head(IMAGE, generator).double(), init_head(TEXT, generator).double())
                         for _ in range(2))
        self.segment = Segment(start, target)
        second = torch.Generator().manual_seed(9)
        self.steps = []
        for rows in draw_batches(6, 3, 4, generator):
            blend = draw_blend(4, generator, 1.0)
            kept = HEADS.draw_masks(4, generator) if dropout else NO_DROPOUT
            again = HEADS.draw_masks(4, second) if dropout == "different" else kept
            self.steps.append(InnerStep(rows, blend, kept, again))
        self.objective = StudentLoss(LOSSES[loss], 0.5)

    def gradient(self, name: str, normaliser: str = "separate") -> MatchingGradient:
        return GRADIENTS[name](self.data, RATES, self.segment, self.steps, HEADS.student, self.objective,
                               NORMALISERS[normaliser])

    def joint_loss(self, data: SyntheticData, rates: PerModality, frozen: list[PerModality] | None,
                   joint: bool) -> Tensor:
        """The matching loss from its definition. With `frozen`, inner parameters are those constants (TESLA)."""
        theta = PerModality(*(value.clone().requires_grad_() for value in self.segment.start))
        sums = [torch.zeros_like(value) for value in theta]
        for number, step in enumerate(self.steps):
            rows, blend, masks = step.indices, step.perturbation, step.masks
            at = frozen[number] if frozen else theta
            at = PerModality(*(value.requires_grad_() for value in at))
            mix = lambda x: blend.weight * x[rows] + (1 - blend.weight) * x[rows][blend.permutation]  # noqa: B023, E731
            u = apply_head(mix(data.images), at.img, IMAGE, masks.img)
            w = apply_head(mix(data.texts), at.txt, TEXT, masks.txt)
            u, w = (x / x.square().sum(1, keepdim=True).sqrt() for x in (u, w))
            loss = self.objective.loss(u @ w.T / self.objective.temperature, data.similarity.matrix()[rows][:, rows])
            slopes = torch.autograd.grad(loss, at, create_graph=True)
            sums = [total + slope for total, slope in zip(sums, slopes, strict=True)]
            theta = PerModality(*(value - rate * slope
                                  for value, rate, slope in zip(theta, rates, slopes, strict=True)))
        ends = [value - rate * total for value, rate, total in zip(self.segment.start, rates, sums, strict=True)]
        squares = [(end - target).square().sum() for end, target in zip(ends, self.segment.target, strict=True)]
        distances = [(a - b).square().sum() for a, b in zip(*self.segment, strict=True)]
        return sum(squares) / sum(distances) if joint else sum(s / d for s, d in zip(squares, distances, strict=True))


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("loss", ["wbce", "infonce", "mse"])
def test_constant_memory_gradient_is_that_of_the_loss_with_frozen_inner_parameters(loss: str, full: bool,
                                                                                   joint: bool) -> None:
    case = Case(loss, full)
    ours = case.gradient("constant-memory", "joint" if joint else "separate")
    frozen = [PerModality(*(value.detach() for value in theta)) for theta in ours.trace.thetas[:-1]]
    leaves = case.data.as_leaves()
    truth = torch.autograd.grad(case.joint_loss(leaves, RATES, frozen, joint), list(leaves.tensors().values()))
    for (name, value), expected in zip(ours.data.items(), truth, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("name", ["images", "texts", "similarity_diagonal", "similarity_left", "similarity_right"])
def test_unrolled_gradient_agrees_with_finite_differences(name: str) -> None:
    case = Case("infonce")
    gradient = case.gradient("unrolled").data[name]
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss_at(distance: float) -> float:
        moved = case.data.with_tensors(case.data.tensors() | {name: case.data.tensors()[name] + distance * direction})
        return case.joint_loss(moved, RATES, None, joint=False).item()

    numerical = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5
    assert (gradient * direction).sum().item() == pytest.approx(numerical, rel=1e-6)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("loss", ["wbce", "infonce", "mse"])
def test_unrolled_gradient_is_that_of_the_graph_through_all_steps(loss: str, full: bool, joint: bool) -> None:
    case = Case(loss, full)
    ours = case.gradient("unrolled", "joint" if joint else "separate")
    leaves, rates = case.data.as_leaves(), PerModality(*(rate.clone().requires_grad_() for rate in RATES))
    truth = torch.autograd.grad(case.joint_loss(leaves, rates, None, joint), [*leaves.tensors().values(), *rates])
    for value, expected in zip([*ours.data.values(), *ours.rates], truth, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


SIMILARITY = ("similarity_diagonal", "similarity_left", "similarity_right")
CONSTANTS = [("images",), ("texts",), SIMILARITY, ("images", "texts"), ("images", *SIMILARITY), ("texts", *SIMILARITY),
             ("images", "texts", *SIMILARITY)]
"""Names of tensors that a variant leaves as they are."""


@pytest.mark.parametrize("second_order", SECOND_ORDER)
@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda names: "+".join(names))
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_of_what_is_learned_are_the_same_and_others_are_not_formed(name: str, constant: tuple[str, ...],
                                                                             second_order: str) -> None:
    case = Case("infonce")
    whole = case.gradient(name)
    data = replace(case.data, constant=frozenset(constant))
    some = GRADIENTS[name](data, RATES, case.segment, case.steps, HEADS.student._replace(second_order=second_order),
                           case.objective, NORMALISERS["separate"])
    assert list(some.data) == [each for each in whole.data if each not in constant]
    for each, value in some.data.items():
        torch.testing.assert_close(value, whole.data[each], rtol=1e-11, atol=1e-13, msg=each)
    torch.testing.assert_close(some.losses, whole.losses)
    torch.testing.assert_close(some.rates, whole.rates, rtol=1e-11, atol=1e-13)


def test_unrolled_rate_gradient_agrees_with_finite_differences() -> None:
    case = Case("wbce")
    gradient = case.gradient("unrolled").rates
    for side, value in enumerate(gradient):
        def loss_at(distance: float, side: int = side) -> float:
            moved = [rate + distance * (position == side) for position, rate in enumerate(RATES)]
            return case.joint_loss(case.data, PerModality(*moved), None, joint=False).item()
        assert value.item() == pytest.approx((loss_at(1e-6) - loss_at(-1e-6)) / 2e-6, rel=1e-5)


def test_both_gradients_report_the_same_losses() -> None:
    case = Case("wbce")
    ours, theirs = case.gradient("constant-memory"), case.gradient("unrolled")
    torch.testing.assert_close(ours.losses, theirs.losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(sum(ours.losses), case.joint_loss(case.data, RATES, None, joint=False).detach(),
                               rtol=1e-12, atol=0)


def test_truncation_vanishes_with_the_inner_learning_rate() -> None:
    case = Case("infonce")
    rates = PerModality(*(torch.tensor(1e-6, dtype=torch.float64) for _ in range(2)))
    ours, theirs = (GRADIENTS[name](case.data, rates, case.segment, case.steps, HEADS.student, case.objective,
                                    NORMALISERS["separate"]).data["images"]
                    for name in ("constant-memory", "unrolled"))
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 1 - 1e-8


def test_pairs_outside_every_batch_get_no_gradient() -> None:
    case = Case("infonce")
    case.steps = [InnerStep(torch.tensor([0, 2, 3]), None), InnerStep(torch.tensor([3, 2, 5]), None)]
    for value in case.gradient("constant-memory").data.values():
        assert value[[1, 4]].abs().max() == 0
        assert value[[0, 2, 3, 5]].abs().sum() > 0


def test_with_the_same_dropout_in_both_passes_the_gradient_is_that_of_the_loss() -> None:
    case = Case("wbce", dropout="same")
    ours = case.gradient("constant-memory")
    frozen = [PerModality(*(value.detach() for value in theta)) for theta in ours.trace.thetas[:-1]]
    leaves = case.data.as_leaves()
    truth = torch.autograd.grad(case.joint_loss(leaves, RATES, frozen, joint=False), list(leaves.tensors().values()))
    for (tensor, value), expected in zip(ours.data.items(), truth, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12, msg=tensor)


@pytest.mark.parametrize("dropout", ["same", "different"])
def test_the_unrolled_gradient_is_exact_with_dropout(dropout: str) -> None:
    """It has one pass, so the second pass's draws do not matter."""
    case = Case("infonce", dropout=dropout)
    ours = case.gradient("unrolled")
    leaves, rates = case.data.as_leaves(), PerModality(*(rate.clone().requires_grad_() for rate in RATES))
    truth = torch.autograd.grad(case.joint_loss(leaves, rates, None, joint=False), [*leaves.tensors().values(), *rates])
    for value, expected in zip([*ours.data.values(), *ours.rates], truth, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


def test_with_different_dropout_the_second_pass_linearises_other_functions() -> None:
    """By its definition: c from the first pass's gradients, 2 <c, g'> / D with g' under the second pass's draws."""
    case = Case("wbce", dropout="different")
    ours = case.gradient("constant-memory")
    data = case.data.as_leaves()
    total = torch.zeros((), dtype=torch.float64)
    for step, theta in zip(case.steps, ours.trace.thetas, strict=False):
        leaves = PerModality(*(value.detach().requires_grad_() for value in theta))
        second = step._replace(masks=step.gradient_masks)
        loss = inner_loss(HEADS.student, leaves, data.rows(step.indices), second, case.objective)
        slopes = torch.autograd.grad(loss, leaves, create_graph=True)
        for slope, rate, start, target, summed in zip(slopes, RATES, *case.segment, ours.trace.gradient_sum,
                                                      strict=True):
            c = rate * (target - start) + rate.square() * summed
            total = total + 2 * (c @ slope) / (start - target).square().sum()
    truth = torch.autograd.grad(total, list(data.tensors().values()))
    for value, expected in zip(ours.data.values(), truth, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    same = Case("wbce", dropout="same").gradient("constant-memory").data["images"]
    assert (ours.data["images"] - same).abs().max() > 0.01 * same.abs().max()


# The engine against the published two-pass procedure, with an encoder in the loop.


PLAIN_IMAGE, PLAIN_TEXT = HeadSpec(5, 4), HeadSpec(3, 4)
STUDENT = TwoTower(lambda x, flat: apply_head(x, flat, PLAIN_IMAGE), lambda x, flat: apply_head(x, flat, PLAIN_TEXT))


def test_encoding_once_gives_the_pixel_gradient_of_the_two_pass_procedure() -> None:
    draws = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws, dtype=torch.float64)

    weight = normal(12, 5)
    encode = lambda images: torch.tanh(images.flatten(1) @ weight).square() + 0.1 * images.flatten(1)[:, :5]  # noqa: E731
    images, texts = normal(7, 3, 2, 2), normal(7, 3)
    similarity = LowRankSimilarity(normal(7), normal(7, 2), normal(7, 2), 1.5)
    segment = Segment(*(PerModality(init_head(PLAIN_IMAGE, draws).double(), init_head(PLAIN_TEXT, draws).double())
                        for _ in range(2)))
    rates = PerModality(torch.tensor(0.05, dtype=torch.float64), torch.tensor(0.03, dtype=torch.float64))
    steps = [InnerStep(rows, draw_blend(4, draws, 1.0)) for rows in draw_batches(7, 5, 4, draws)]
    objective = StudentLoss(LOSSES["wbce"], 0.3)

    loss, expected = two_pass_gradient(SyntheticData(images, texts, similarity), rates, segment, steps, encode,
                                       STUDENT, objective)

    once = KeptGraph(images, torch.arange(7), encode, 3)
    ours = constant_memory_gradient(SyntheticData(once.features(), texts, similarity), rates, segment, steps, STUDENT,
                                    objective, NORMALISERS["separate"])
    torch.testing.assert_close(sum(ours.losses), loss, rtol=1e-10, atol=0)
    for name, value in (ours.data | {"images": once.pull_back(ours.data["images"])}).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12, msg=name)
