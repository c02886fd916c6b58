"""Variants of one distillation iteration, all on the same images, draws and expert segment."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.two_pass import two_pass_gradient
from repblend.encoders.heads import HeadSpec
from repblend.encoders.image import ImageEncoder
from repblend.evaluation.towers import HeadPair
from repblend.experts.trajectories import TrajectoryStore
from repblend.matching.blending import draw_blend
from repblend.matching.distillation import Distillation, Draws, KeptGraph, Matcher
from repblend.matching.gradient import NORMALISERS
from repblend.matching.heads import heads_gradient
from repblend.matching.losses import LOSSES
from repblend.matching.optimiser import Learned, LinearRates, Momenta, OuterRates, sgd
from repblend.matching.similarity import LowRankSimilarity
from repblend.matching.student import PerModality, StudentLoss, SyntheticData

PAIRS, TEXT_WIDTH, HEAD_WIDTH, CHUNK = 100, 384, 256, 20
DRAWS = Draws(seed=0, num_segments=1, inner_steps=8, batch_size=20, perturb=partial(draw_blend, alpha=1.0),
              expert_span=1, max_start=1)


class OneSegment(TrajectoryStore):
    """An expert with two random snapshots, which lie in memory."""

    def __init__(self, heads: HeadPair) -> None:
        draws, self.num_snapshots, self._files = torch.Generator().manual_seed(1), 2, [Path()]
        self._snapshots = [heads.initial(draws, draws) for _ in range(2)]

    def snapshot(self, expert: int, index: int) -> PerModality:
        return self._snapshots[index]


def iteration_variants(encoder: ImageEncoder, plain: Callable[[Tensor], Tensor],
                       size: int) -> dict[str, Callable[[], object]]:
    """Return the variants to time, by name, for square images of `size` pixels."""
    heads = HeadPair(HeadSpec(encoder.feature_dim, HEAD_WIDTH), HeadSpec(TEXT_WIDTH, HEAD_WIDTH))
    objective, trajectories = StudentLoss(LOSSES["wbce"], 0.07), OneSegment(heads)
    draws = torch.Generator().manual_seed(0)
    rates = PerModality(torch.tensor(0.1), torch.tensor(0.1))
    learned = Learned(torch.randn(PAIRS, 3, size, size, generator=draws),
                      torch.randn(PAIRS, TEXT_WIDTH, generator=draws),
                      LowRankSimilarity.identity(PAIRS, 10, 3.0, draws), rates, LinearRates)
    data = SyntheticData(learned.images.clone(), learned.texts.clone(), learned.similarity)
    optimiser = sgd(learned, OuterRates(1e-6, 1e-6, 1e-6, 1e-6), Momenta(0.5, 0.5, 0.5))
    matcher = Matcher(partial(KeptGraph, encode=encoder.encode, chunk=CHUNK),
                      partial(heads_gradient, heads=(heads.img, heads.txt), objective=objective,
                              normaliser=NORMALISERS["separate"]))
    ours = Distillation(learned, optimiser, lambda _: 1.0, 0.0, matcher, DRAWS, trajectories)
    segment, steps = DRAWS.segments(0, trajectories)[0], DRAWS.students(0, PAIRS)[0]

    def two_pass(encode: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return lambda: two_pass_gradient(data, rates, segment, steps, encode, heads.student, objective)

    def forward_and_backward() -> None:
        for part in data.images.split(CHUNK):  # as the engine does
            leaf = part.detach().requires_grad_()
            features = encoder.encode(leaf)
            torch.autograd.grad(features, leaf, torch.ones_like(features))

    return {
        "lower bound": forward_and_backward,
        "encode once (this engine, a whole iteration)": lambda: ours.iterate(0),
        "two passes, encoder as it comes": two_pass(plain),
        "two passes, folded and channels-last encoder": two_pass(encoder.encode),
    }
