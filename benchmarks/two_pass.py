"""A straightforward implementation of the published two-pass procedure: the encoder runs again for every inner step.

It is the yardstick of the benchmark and an oracle of the tests: written from the formulas of paper/METHOD.md, section
6, alone, it shares the projection head and the losses with the engine, and nothing else.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from repblend.matching.blending import Blend
from repblend.matching.gradient import Segment
from repblend.matching.losses import cosine_logits
from repblend.matching.student import InnerStep, PerModality, StudentLoss, SyntheticData, TwoTower


def two_pass_gradient(data: SyntheticData, rates: PerModality, segment: Segment, steps: list[InnerStep],
                      encode: Callable[[Tensor], Tensor], student: TwoTower,
                      objective: StudentLoss) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the matching loss (separate normalisers) and the gradients of the data.

    Args:
        data: with pixels (N, 3, H, W) as its images.
        encode: the frozen image encoder; whatever leaves pixels as they are, if the student has an encoder of its own.
    """

    def step_gradients(source: SyntheticData, theta: PerModality, step: InnerStep) -> tuple[Tensor, ...]:
        blend = step.perturbation
        features = student.represent(encode(source.images[step.indices]), theta.img)
        texts = source.texts[step.indices]
        if isinstance(blend, Blend):
            features, texts = (blend.weight * x + (1 - blend.weight) * x[blend.permutation] for x in (features, texts))
        logits = cosine_logits(student.image(features, theta.img), student.text(texts, theta.txt),
                               objective.temperature)
        loss = objective.loss(logits, source.similarity.batch(step.indices))
        return torch.autograd.grad(loss, theta, create_graph=True)

    leaves = data.as_leaves()
    thetas, sums = [segment.start], [torch.zeros_like(value) for value in segment.start]
    for step in steps:  # first pass; its second-order graph is built and never used, as in the released code
        theta = PerModality(*(value.detach().requires_grad_() for value in thetas[-1]))
        slopes = [slope.detach() for slope in step_gradients(leaves, theta, step)]
        sums = [total + slope for total, slope in zip(sums, slopes, strict=True)]
        thetas.append(PerModality(*(value - rate * slope
                                    for value, rate, slope in zip(thetas[-1], rates, slopes, strict=True))))

    loss, directions = torch.zeros(()), []
    for start, target, rate, total in zip(*segment, rates, sums, strict=True):
        distance = (start - target).square().sum()
        loss = loss + (start - rate * total - target).square().sum() / distance
        directions.append(2 * (rate * (target - start) + rate**2 * total) / distance)

    gradients = {name: torch.zeros_like(value) for name, value in data.tensors().items()}
    for step, values in zip(steps, thetas, strict=False):  # second pass
        theta = PerModality(*(value.detach().requires_grad_() for value in values))
        projection = torch.stack([slope @ direction for slope, direction in
                                  zip(step_gradients(leaves, theta, step), directions, strict=True)]).sum()
        tensors = leaves.tensors()
        for name, gradient in zip(tensors, torch.autograd.grad(projection, list(tensors.values())), strict=True):
            gradients[name] += gradient
    return loss, gradients
