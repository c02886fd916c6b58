"""Time an iteration of universal feature compensators: `python -m benchmarks.ufc`. Under two minutes on one core.

The bound of any implementation is one forward and one input-backward pass of the teacher over the images of the
iteration. Printed beside it: compensators batched, one by one, and with statistics taken by plain hooks, as released.
All are processor seconds of one thread, the median of rounds in which the variants take turns, so that others at work
on the machine disturb them less.
"""

import statistics
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import times_of
from repblend.runtime.harness import compute_deterministically
from repblend.streams import stream
from repblend.ufc.networks import build
from repblend.ufc.objective import MeasuredLayers, Objective

ROUNDS = 7
UNIT = "bound: forward and input-backward"
CASES = (("convnet-small", 8, 10, 14), ("resnet-small", 8, 10, 14), ("mobilenet-small", 8, 10, 14),
         ("resnet18", 32, 10, 2), ("convnet128", 32, 10, 4))
"""Teacher, pixels, classes, compensators at once."""


def main() -> None:
    """Print, for every case, seconds per compensator and iteration, and their ratio to the bound."""
    compute_deterministically(1)
    for architecture, size, num_classes, num_compensators in CASES:
        print(f"\n{architecture}, {size} px, {num_classes} classes, {num_compensators} compensators at once")
        timed = times_of(variants(architecture, size, num_classes, num_compensators), ROUNDS)
        seconds = {name: statistics.median(each.processor for each in times) for name, times in timed.items()}
        for name, value in seconds.items():
            print(f"  {name:<40} {1000 * value / num_compensators:8.2f} ms  {value / seconds[UNIT]:5.2f} x bound")


def variants(architecture: str, size: int, num_classes: int, num: int) -> dict[str, Callable[[], object]]:
    """Return what is timed: each computes one iteration of `num` compensators, or the bound of it."""
    teacher = build(architecture, num_classes, size, stream(0, "benchmark")).eval().requires_grad_(False)
    draws = stream(1, "benchmark")
    images = torch.randn(num, num_classes, 3, size, size, generator=draws)
    compensators, labels = torch.zeros(num, 1, 3, size, size), torch.arange(num_classes)
    objective = Objective(teacher, MeasuredLayers(teacher, [1] if architecture == "efficientnet_b0" else []), 1.0, 10.0)
    return {
        UNIT: partial(two_passes, teacher, images, labels),
        "batched": partial(objective.gradient, images, compensators, labels),
        "one by one": lambda: [objective.gradient(images[row:row + 1], compensators[row:row + 1], labels)
                               for row in range(num)],
        "one by one, plain hooks (as released)": lambda: [
            with_hooks(teacher, images[row], compensators[row], labels) for row in range(num)]}


def two_passes(teacher: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The bound: cross-entropy alone, and its gradient with respect to the images."""
    inputs = images.flatten(0, 1).requires_grad_()
    return torch.autograd.grad(F.cross_entropy(teacher(inputs), labels.repeat(len(images))), inputs)[0]


def with_hooks(teacher: nn.Module, images: Tensor, compensator: Tensor, labels: Tensor) -> Tensor:
    """One compensator with the statistics of every layer's input taken by a hook."""
    terms: list[Tensor] = []

    def take(layer: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        mean, var = inputs[0].mean((0, 2, 3)), inputs[0].transpose(0, 1).flatten(1).var(1, unbiased=False)
        assert layer.running_mean is not None and layer.running_var is not None
        terms.append((var - layer.running_var).norm() + (mean - layer.running_mean).norm())

    hooks = [layer.register_forward_pre_hook(take) for layer in teacher.modules() if isinstance(layer, nn.BatchNorm2d)]
    leaf = compensator.detach().requires_grad_()
    loss = F.cross_entropy(teacher(images + leaf), labels) + 10 * terms[0] + sum(terms[1:])
    for hook in hooks:
        hook.remove()
    return torch.autograd.grad(loss, leaf)[0]


if __name__ == "__main__":
    main()
