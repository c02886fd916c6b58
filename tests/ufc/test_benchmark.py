"""The benchmark compares like with like: its variants compute the same gradient, and the bound less than them."""

import torch

from benchmarks import ufc
from benchmarks.timing import seconds_of
from repblend.ufc.objective import MeasuredLayers, Objective
from tests.ufc.small import network


def test_the_released_variant_has_the_gradient_of_the_batched_one() -> None:
    teacher = network()
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(3, 4, 3, 8, 8, generator=draws, dtype=torch.float64)
    compensators, labels = torch.zeros(3, 1, 3, 8, 8, dtype=torch.float64), torch.arange(4)
    _, batched = Objective(teacher, MeasuredLayers(teacher), 1.0, 10.0).gradient(images, compensators, labels)
    released = torch.stack([ufc.with_hooks(teacher, images[row], compensators[row], labels) for row in range(3)])
    torch.testing.assert_close(released, batched, rtol=1e-9, atol=1e-12)


def test_every_variant_runs_and_the_bound_leaves_the_statistics_out() -> None:
    timed = ufc.variants("convnet-small", 8, 10, 2)
    assert ufc.UNIT in timed and all(seconds[0] > 0 for seconds in seconds_of(timed, rounds=1).values())
    labels = torch.arange(4)
    images = torch.randn(1, 4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    teacher = network()
    without = Objective(teacher, MeasuredLayers(teacher), 0.0, 10.0)
    _, gradient = without.gradient(images, torch.zeros(1, 1, 3, 8, 8, dtype=torch.float64), labels)
    torch.testing.assert_close(ufc.two_passes(teacher, images, labels).sum(0), gradient[0, 0])
