"""The gradient of matched heads, whose first layers are never formed, against the one for any model by autograd."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from repblend.matching.blending import draw_blend, draw_noise
from repblend.matching.gradient import NORMALISERS, Matched, Segment, constant_memory_gradient, one_by_one
from repblend.matching.heads import heads_gradient
from repblend.matching.losses import LOSSES
from repblend.matching.similarity import IdentitySimilarity
from repblend.matching.student import InnerStep, PerModality, StudentLoss, SyntheticData, draw_batches
from tests.matching.test_gradient import CONSTANTS, HEADS, IMAGE, RATES, TEXT, Case

PERTURBATIONS = {"none": lambda generator: None, "blending": partial(draw_blend, 4, alpha=1.0),
                 "noise": partial(draw_noise, 4, level=0.5, image_width=5, text_width=3)}


def two_segments(case: Case, perturb: str) -> tuple[list[Segment], list[list[InnerStep]]]:
    """The case's segment and another one, each with steps of its own."""
    draws = torch.Generator().manual_seed(5)
    other = Segment(case.segment.target, PerModality(*(0.9 * value for value in case.segment.start)))
    students = [[step._replace(perturbation=PERTURBATIONS[perturb](generator=draws)) for step in steps]
                for steps in (case.steps, case.steps[::-1])]
    return [case.segment, other], students


def both(case: Case, segments: list[Segment], students: list[list[InnerStep]],
         normaliser: str) -> tuple[Matched, Matched]:
    ours = heads_gradient(case.data, RATES, segments, students, (IMAGE, TEXT), case.objective, NORMALISERS[normaliser])
    any_model = one_by_one(constant_memory_gradient, HEADS.student, case.objective, NORMALISERS[normaliser])
    return ours, any_model(case.data, RATES, segments, students)


def assert_same(ours: Matched, theirs: Matched) -> None:
    torch.testing.assert_close(ours.losses, theirs.losses, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(ours.rates, theirs.rates, rtol=1e-11, atol=1e-13)
    assert ours.data.keys() == theirs.data.keys()
    for name, value in theirs.data.items():
        torch.testing.assert_close(ours.data[name], value, rtol=1e-9, atol=1e-12, msg=name)
        assert value.abs().max() > 0


@pytest.mark.parametrize("dropout", [None, "same", "different"])
@pytest.mark.parametrize("perturb", PERTURBATIONS)
@pytest.mark.parametrize("loss", sorted(LOSSES.keys() - {"bce"}))
def test_two_segments_at_once_give_the_mean_of_both(loss: str, perturb: str, dropout: str | None) -> None:
    case = Case(loss, full=loss == "infonce", dropout=dropout)
    assert_same(*both(case, *two_segments(case, perturb), "joint" if loss == "kl" else "separate"))


@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda names: "+".join(names))
def test_only_gradients_of_what_is_learned_are_formed(constant: tuple[str, ...]) -> None:
    case = Case("wbce")
    segments, students = two_segments(case, "blending")
    whole, _ = both(case, segments, students, "separate")
    case.data = replace(case.data, constant=frozenset(constant))
    some, any_model = both(case, segments, students, "separate")
    assert list(some.data) == [name for name in whole.data if name not in constant] == list(any_model.data)
    assert all(torch.equal(value, whole.data[name]) for name, value in some.data.items())
    assert some.losses == whole.losses and some.rates == whole.rates


def test_the_rates_alone_need_no_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("infonce")
    case.data = replace(case.data, constant=frozenset(case.data.tensors()))
    monkeypatch.delattr("repblend.matching.heads._curvature")
    found = heads_gradient(case.data, RATES, [case.segment], [case.steps], (IMAGE, TEXT), case.objective,
                           NORMALISERS["separate"])
    assert not found.data and all(value != 0 for value in found.rates)


def test_a_batch_larger_than_the_set_is_the_whole_set() -> None:
    case, draws = Case("wbce"), torch.Generator().manual_seed(1)
    steps = [InnerStep(rows, draw_blend(6, draws, 0.5)) for rows in draw_batches(6, 3, 100, draws)]
    assert_same(*both(case, [case.segment], [steps], "separate"))


def test_targets_within_bounds_suit_the_loss_that_needs_them() -> None:
    case = Case("bce")
    case.data = SyntheticData(case.data.images, case.data.texts, Doubles(6))
    assert_same(*both(case, *two_segments(case, "blending"), "joint"))


class Doubles(IdentitySimilarity):
    """The identity in float64."""

    def matrix(self) -> torch.Tensor:
        return super().matrix().double()

    def rows(self, indices: torch.Tensor) -> "Doubles":
        return Doubles(indices.shape[-1])


def test_pairs_outside_every_batch_get_no_gradient() -> None:
    case = Case("infonce")
    steps = [InnerStep(torch.tensor([0, 2, 3]), None), InnerStep(torch.tensor([3, 2, 5]), None)]
    ours, _ = both(case, [case.segment], [steps], "separate")
    for value in ours.data.values():
        assert value[[1, 4]].abs().max() == 0
        assert value[[0, 2, 3, 5]].abs().sum() > 0


def test_one_segment_does_not_feel_the_other() -> None:
    """The mean of two equal segments is the one, and its losses are those of the student alone."""
    case = Case("wbce")
    alone, _ = both(case, [case.segment], [case.steps], "separate")
    twice, _ = both(case, [case.segment] * 2, [case.steps] * 2, "separate")
    torch.testing.assert_close(twice, alone, rtol=1e-12, atol=1e-14)
    assert sum(alone.losses).item() == pytest.approx(case.joint_loss(case.data, RATES, None, joint=False).item())


def test_float32_is_as_exact_as_the_gradient_for_any_model() -> None:
    """Squared residuals come from differences of sums, so their rounding is looked at where little is left of them."""
    exact = Case("infonce")
    near = PerModality(*(value + 1e-3 * torch.randn(value.shape, dtype=value.dtype,
                                                     generator=torch.Generator().manual_seed(2))
                         for value in exact.segment.start))
    segment = Segment(exact.segment.start, near)
    truth, _ = both(exact, [segment], [exact.steps], "separate")
    single = SyntheticData(exact.data.images.float(), exact.data.texts.float(), exact.data.similarity.with_tensors(
        {name: value.float() for name, value in exact.data.similarity.tensors().items()}))
    rates, floats = PerModality(*(rate.float() for rate in RATES)), Segment(*(
        PerModality(*(value.float() for value in side)) for side in segment))
    ours = heads_gradient(single, rates, [floats], [exact.steps], (IMAGE, TEXT), StudentLoss(LOSSES["infonce"], 0.5),
                          NORMALISERS["separate"])
    torch.testing.assert_close(torch.stack(ours.losses).double(), torch.stack(truth.losses), rtol=2e-3, atol=0)
    for name, value in truth.data.items():
        assert (ours.data[name].double() - value).norm() < 2e-3 * value.norm(), name
