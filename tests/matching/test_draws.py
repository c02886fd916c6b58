"""Batches, blends and the choice of expert segments."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor

from repblend.matching.blending import Blend, draw_blend, draw_noise
from repblend.matching.distillation import Draws
from repblend.matching.student import PerModality, draw_batches


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_batches_partition_each_permutation_and_drop_the_rest() -> None:
    batches = draw_batches(11, 7, 4, generator())
    assert [len(batch) for batch in batches] == [4] * 7
    for first, second in zip(batches[0::2], batches[1::2], strict=False):  # two whole batches fit into 11
        assert len(set(first.tolist()) | set(second.tolist())) == 8


def test_a_batch_larger_than_the_set_is_the_whole_set_in_new_orders() -> None:
    batches = draw_batches(5, 6, 8, generator())
    assert all(sorted(batch.tolist()) == list(range(5)) for batch in batches)
    assert len({tuple(batch.tolist()) for batch in batches}) > 1


def test_every_pair_is_drawn_equally_often() -> None:
    counts = Counter(torch.cat(draw_batches(10, 4000, 3, generator())).tolist())
    assert all(abs(count / 1200 - 1) < 0.1 for count in counts.values()) and len(counts) == 10


def test_blend_follows_its_formula() -> None:
    rows = torch.arange(6.0).view(3, 2)
    images, texts = Blend(0.25, torch.tensor([2, 0, 1])).apply(rows, 10 * rows)
    expected = torch.tensor([[3.0, 4.0], [0.5, 1.5], [2.5, 3.5]])
    torch.testing.assert_close(images, expected)
    torch.testing.assert_close(texts, 10 * expected)


def test_noise_has_its_level_in_units_of_the_root_mean_square() -> None:
    draws = generator()
    images, texts = 7 * torch.randn(50, 40, generator=draws) + 3, torch.full((50, 30), 2.0)
    noise = draw_noise(50, draws, 0.5, 40, 30)
    noisy_images, noisy_texts = noise.apply(images, texts)
    assert (noisy_images - images).std().item() == pytest.approx(0.5 * (49 + 9) ** 0.5, rel=0.05)
    assert (noisy_texts - texts).std().item() == pytest.approx(0.5 * 2, rel=0.05)
    assert torch.equal(noise.apply(images, texts)[0], noisy_images)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_blending_weights_are_beta_distributed(alpha: float) -> None:
    draws = generator()
    weights = torch.tensor([draw_blend(2, draws, alpha).weight for _ in range(20000)], dtype=torch.float64)
    assert weights.mean().item() == pytest.approx(0.5, abs=0.01)
    assert weights.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


class Numbered:
    """Trajectories whose snapshots name themselves: expert * 100 + index."""

    num_snapshots = 6

    def __len__(self) -> int:
        return 4

    def snapshot(self, expert: int, index: int) -> PerModality:
        value: Tensor = torch.tensor(100 * expert + index)
        return PerModality(value, value)


def draws(**changes: object) -> Draws:
    return Draws(**({"seed": 1, "num_segments": 1, "inner_steps": 3, "batch_size": 4,
                     "perturb": partial(draw_blend, alpha=1.0), "expert_span": 2, "max_start": 3} | changes))


def test_experts_take_turns_in_a_new_order_each_round() -> None:
    experts = [int(draws().segments(iteration, Numbered())[0].start.img) // 100 for iteration in range(40)]
    rounds = [tuple(experts[start:start + 4]) for start in range(0, 40, 4)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in rounds)
    assert len(set(rounds)) > 1


def test_segments_start_anywhere_allowed_and_end_a_span_later() -> None:
    segments = [draws().segments(iteration, Numbered())[0] for iteration in range(60)]
    assert {int(segment.start.img) % 100 for segment in segments} == {0, 1, 2}
    assert all(int(segment.target.txt - segment.start.txt) == 2 for segment in segments)


def test_text_sides_may_be_of_another_expert_all_through_a_run() -> None:
    partner: dict[int, int] = {}
    for iteration in range(40):
        (mixed,), (plain,) = (draws(expert_sides=sides).segments(iteration, Numbered())
                              for sides in ("shuffled", "same-expert"))
        assert mixed.start.img == plain.start.img and mixed.target.img == plain.target.img
        assert mixed.start.txt % 100 == plain.start.txt % 100 and mixed.target.txt - mixed.start.txt == 2
        expert, found = int(mixed.start.img) // 100, int(mixed.start.txt) // 100
        assert partner.setdefault(expert, found) == found
    assert sorted(partner) == sorted(partner.values()) == [0, 1, 2, 3] and any(a != b for a, b in partner.items())


def test_draws_of_an_iteration_depend_on_nothing_but_its_number() -> None:
    (first,), (again,) = draws().students(7, 9), draws().students(7, 9)
    draws().students(6, 9)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.indices, other.indices) and one.perturbation.weight == other.perturbation.weight
    assert not torch.equal(first[0].indices, draws().students(8, 9)[0][0].indices)


def test_switching_blending_off_leaves_the_batches_as_they_are() -> None:
    (with_blend,), (without,) = draws().students(3, 9), draws(perturb=None).students(3, 9)
    assert all(torch.equal(a.indices, b.indices) for a, b in zip(with_blend, without, strict=True))
    assert all(step.perturbation is None for step in without)


def test_several_segments_per_iteration_are_those_of_as_many_iterations() -> None:
    single = [draws().students(iteration, 9)[0] for iteration in range(4)]
    double = [steps for iteration in range(2) for steps in draws(num_segments=2).students(iteration, 9)]
    for one, other in zip(single, double, strict=True):
        assert all(torch.equal(a.indices, b.indices) for a, b in zip(one, other, strict=True))
    starts = [draws().segments(iteration, Numbered())[0].start.img for iteration in range(4)]
    assert starts == [s.start.img for i in range(2) for s in draws(num_segments=2).segments(i, Numbered())]
