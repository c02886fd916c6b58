"""The outer loop: it lowers the matching loss, resumes bit for bit, and stops before a bad update."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repblend.encoders.heads import HeadSpec, init_head
from repblend.matching.blending import draw_blend
from repblend.matching.distillation import CRITERIA, ENCODER_GRAPHS, Distillation, Draws, History, KeptGraph, Matcher
from repblend.matching.gradient import NORMALISERS
from repblend.matching.heads import heads_gradient
from repblend.matching.losses import LOSSES
from repblend.matching.optimiser import PARTS, Learned, LogRates, OuterRates, adam, part_of
from repblend.matching.similarity import LowRankSimilarity
from repblend.matching.student import PerModality, StudentLoss

IMAGE, TEXT = HeadSpec(4, 4), HeadSpec(3, 4)
DRAWS = Draws(seed=0, num_segments=2, inner_steps=3, batch_size=4, perturb=partial(draw_blend, alpha=1.0),
              expert_span=1, max_start=2)


class ShortTrajectories:
    """Two experts with three snapshots each."""

    num_snapshots = 3

    def __init__(self) -> None:
        draws = torch.Generator().manual_seed(1)
        self._start = [PerModality(init_head(IMAGE, draws), init_head(TEXT, draws)) for _ in range(2)]
        self._move = [PerModality(*(0.02 * torch.randn(x.shape, generator=draws) for x in s)) for s in self._start]

    def __len__(self) -> int:
        return 2

    def snapshot(self, expert: int, index: int) -> PerModality:
        return PerModality(*(a + index * b for a, b in zip(self._start[expert], self._move[expert], strict=True)))


def encode(images: Tensor) -> Tensor:
    return torch.tanh(images.flatten(1)[:, :4] + images.flatten(1)[:, 4:8])


def distillation(draws: Draws = DRAWS, parts: Sequence[str] = PARTS) -> Distillation:
    generator = torch.Generator().manual_seed(2)
    learned = Learned(torch.randn(6, 3, 2, 2, generator=generator), torch.randn(6, 3, generator=generator),
                      LowRankSimilarity.identity(6, 2, 1.0, generator),
                      PerModality(torch.tensor(0.05), torch.tensor(0.05)), LogRates, parts)
    matcher = Matcher(partial(KeptGraph, encode=encode, chunk=2),
                      partial(heads_gradient, heads=(IMAGE, TEXT), objective=StudentLoss(LOSSES["infonce"], 0.1),
                              normaliser=NORMALISERS["separate"]))
    return Distillation(learned, adam(learned, OuterRates(0.02, 0.02, 0.02, 0.02)), lambda _: 1.0, 1e-4, matcher,
                        draws, ShortTrajectories())


def test_the_matching_loss_falls() -> None:
    run = distillation()
    losses = [sum(run.iterate(iteration).losses).item() for iteration in range(150)]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


@pytest.mark.parametrize("parts", [PARTS, *([part] for part in PARTS), ["similarity", "rates"]], ids="+".join)
def test_only_what_is_learned_moves(parts: Sequence[str]) -> None:
    run = distillation(parts=parts)
    before = {name: value.clone() for name, value in run.learned.tensors.items()}
    for iteration in range(3):
        run.iterate(iteration)
    for name, value in run.learned.tensors.items():
        assert torch.equal(value, before[name]) != (part_of(name) in parts), name
        assert (value.grad is None) != (part_of(name) in parts), name


def test_images_that_are_not_learned_are_not_pulled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(KeptGraph, "pull_back")
    distillation(parts=["texts", "similarity", "rates"]).iterate(0)
    with pytest.raises(AttributeError, match="pull_back"):
        distillation().iterate(0)


@pytest.mark.parametrize("parts", [PARTS, ["texts", "rates"]], ids="+".join)
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_restored_run_continues_bit_for_bit(stop: int, parts: Sequence[str]) -> None:
    straight, first, second = (distillation(parts=parts) for _ in range(3))
    for iteration in range(8):
        straight.iterate(iteration)
    for iteration in range(stop):
        first.iterate(iteration)
    second.restore({name: value.clone() for name, value in first.tensors().items()})
    for iteration in range(stop, 8):
        second.iterate(iteration)
    assert straight.tensors().keys() == second.tensors().keys()
    assert all(torch.equal(value, second.tensors()[name]) for name, value in straight.tensors().items())


def test_a_loss_that_is_not_finite_stops_before_the_update() -> None:
    run = distillation()
    run.learned.tensors["texts"][2] = float("inf")
    before = {name: value.clone() for name, value in run.tensors().items()}
    with pytest.raises(ValueError, match=r"iteration 5: the .* is not finite"):
        run.iterate(5)
    assert all(torch.equal(value, before[name]) for name, value in run.tensors().items() if name in before)


def test_trajectories_that_are_too_short_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="need snapshot 3, but the experts have 3"):
        distillation(replace(DRAWS, expert_span=2))


# Encoding once is exact: the same pixel gradient as encoding an image again every time it is drawn.


GENERATOR = torch.Generator().manual_seed(5)
WEIGHT = torch.randn(7, 3, 3, 3, generator=GENERATOR, dtype=torch.float64)
IMAGES = torch.randn(9, 3, 6, 6, generator=GENERATOR, dtype=torch.float64)
BATCHES = [torch.tensor(rows) for rows in ([0, 3, 5], [5, 8, 1], [3, 0, 8])]


def convolve(images: Tensor) -> Tensor:
    return torch.tanh(F.conv2d(images, WEIGHT)).mean(dim=(2, 3))


def total(features: Tensor, number: int) -> Tensor:
    """Something nonlinear that differs from step to step, as the student's loss does."""
    return (features.square() * torch.linspace(-1, number + 1, features.numel(), dtype=features.dtype).view_as(
        features)).sum()


@pytest.mark.parametrize("graph", ENCODER_GRAPHS)
@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_pull_back_equals_encoding_every_drawn_image_again(graph: str, chunk: int) -> None:
    pixels = IMAGES.clone().requires_grad_()
    again = sum(total(convolve(pixels[rows]), number) for number, rows in enumerate(BATCHES))
    (expected,) = torch.autograd.grad(again, pixels)

    once = ENCODER_GRAPHS[graph](IMAGES, torch.cat(BATCHES).unique(), convolve, chunk)
    features = once.features().requires_grad_()
    (feature_gradient,) = torch.autograd.grad(
        sum(total(features[rows], number) for number, rows in enumerate(BATCHES)), features)
    ours = once.pull_back(feature_gradient)

    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)
    assert ours[[2, 4, 6, 7]].abs().max() == 0


@pytest.mark.parametrize("graph", ENCODER_GRAPHS)
def test_features_of_drawn_images_are_the_encoders_and_carry_no_graph(graph: str) -> None:
    features = ENCODER_GRAPHS[graph](IMAGES, torch.tensor([1, 4]), convolve, 1).features()
    torch.testing.assert_close(features[[1, 4]], convolve(IMAGES[[1, 4]]), rtol=1e-12, atol=1e-14)
    assert not features.requires_grad
    assert features[[0, 2, 3, 5, 6, 7, 8]].abs().max() == 0


# Which iteration a distillation's history chooses.


VALIDATED = {0: (5.0, 9.0), 20: (8.0, 2.0), 40: (8.0, 9.5), 60: (1.0, 3.0)}
"""Iteration -> mean recall on validation and on test."""


@pytest.mark.parametrize(("choose", "expected"), [("best-validation", 20), ("best-test", 40), ("last", 60)])
def test_the_chosen_iteration_is_the_last_one_that_was_called_best(choose: str, expected: int) -> None:
    history, best = History(criterion=CRITERIA[choose]), None
    for iteration, (val, test) in VALIDATED.items():
        if history.observe(iteration, {"val_mean_recall": val, "test_mean_recall": test}):
            best = iteration
    assert (best, history.chosen_iteration) == (expected, expected)
    again = History(**history.to_json(), criterion=CRITERIA[choose])
    assert again.chosen_iteration == expected
