"""The outer loop: it lowers the matching loss, resumes bit for bit, and stops before a bad update."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from repblend.encoders.heads import HeadSpec, apply_head, init_head
from repblend.matching.distillation import Distillation, Draws, Matcher
from repblend.matching.encode_once import KeptGraph
from repblend.matching.gradient import constant_memory_gradient, separate_normalisers
from repblend.matching.losses import LOSSES
from repblend.matching.outer import Learned, LogRates, OuterRates, adam
from repblend.matching.perturbation import draw_blend
from repblend.matching.similarity import LowRankSimilarity
from repblend.matching.step import Objective, PerModality, Student

IMAGE, TEXT = HeadSpec(4, 4), HeadSpec(3, 4)
STUDENT = Student(lambda x, flat: apply_head(x, flat, IMAGE), lambda x, flat: apply_head(x, flat, TEXT))
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


def distillation(draws: Draws = DRAWS) -> Distillation:
    generator = torch.Generator().manual_seed(2)
    learned = Learned(torch.randn(6, 3, 2, 2, generator=generator), torch.randn(6, 3, generator=generator),
                      LowRankSimilarity.identity(6, 2, 1.0, generator),
                      PerModality(torch.tensor(0.05), torch.tensor(0.05)), LogRates)
    matcher = Matcher(partial(KeptGraph, encode=encode, chunk=2), STUDENT, Objective(LOSSES["infonce"], 0.1),
                      separate_normalisers, constant_memory_gradient)
    return Distillation(learned, adam(learned, OuterRates(0.02, 0.02, 0.02, 0.02)), lambda _: 1.0, 1e-4, matcher,
                        draws, ShortTrajectories())


def test_the_matching_loss_falls() -> None:
    run = distillation()
    losses = [sum(run.iterate(iteration).losses).item() for iteration in range(150)]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_restored_run_continues_bit_for_bit(stop: int) -> None:
    straight, first, second = distillation(), distillation(), distillation()
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
