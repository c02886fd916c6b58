"""Variants of one distillation iteration, all on the same images, draws and expert segment."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.two_pass import two_pass_gradient
from repblend.encoders.heads import HeadSpec, init_head
from repblend.encoders.image import ImageEncoder
from repblend.evaluation.protocol import HeadPair
from repblend.matching.distillation import Distillation, Draws, Matcher
from repblend.matching.encode_once import KeptGraph
from repblend.matching.gradient import kept_graphs_gradient, separate_normalisers
from repblend.matching.losses import LOSSES
from repblend.matching.outer import Learned, LinearRates, Momenta, OuterRates, sgd
from repblend.matching.perturbation import draw_blend
from repblend.matching.similarity import LowRankSimilarity
from repblend.matching.step import Objective, PerModality, SyntheticData

PAIRS, TEXT_WIDTH, HEAD_WIDTH, CHUNK = 100, 384, 256, 20
DRAWS = Draws(seed=0, num_segments=1, inner_steps=8, batch_size=20, perturb=partial(draw_blend, alpha=1.0),
              expert_span=1, max_start=1)


class OneSegment:
    """An expert with two random snapshots."""

    num_snapshots = 2

    def __init__(self, heads: HeadPair) -> None:
        draws = torch.Generator().manual_seed(1)
        self._snapshots = [PerModality(init_head(heads.img, draws), init_head(heads.txt, draws)) for _ in range(2)]

    def __len__(self) -> int:
        return 1

    def snapshot(self, expert: int, index: int) -> PerModality:
        return self._snapshots[index]


def iteration_variants(encoder: ImageEncoder, plain: Callable[[Tensor], Tensor],
                       size: int) -> dict[str, Callable[[], object]]:
    """Return the variants to time, by name, for square images of `size` pixels."""
    heads = HeadPair(HeadSpec(encoder.feature_dim, HEAD_WIDTH), HeadSpec(TEXT_WIDTH, HEAD_WIDTH))
    objective, trajectories = Objective(LOSSES["wbce"], 0.07), OneSegment(heads)
    draws = torch.Generator().manual_seed(0)
    rates = PerModality(torch.tensor(0.1), torch.tensor(0.1))
    learned = Learned(torch.randn(PAIRS, 3, size, size, generator=draws),
                      torch.randn(PAIRS, TEXT_WIDTH, generator=draws),
                      LowRankSimilarity.identity(PAIRS, 10, 3.0, draws), rates, LinearRates)
    data = SyntheticData(learned.images.clone(), learned.texts.clone(), learned.similarity)
    optimiser = sgd(learned, OuterRates(1e-6, 1e-6, 1e-6, 1e-6), Momenta(0.5, 0.5, 0.5))
    matcher = Matcher(partial(KeptGraph, encode=encoder.encode, chunk=CHUNK), heads.student, objective,
                      separate_normalisers, kept_graphs_gradient)
    ours = Distillation(learned, optimiser, lambda _: 1.0, 0.0, matcher, DRAWS, trajectories)
    segment, steps = DRAWS.segments(0, trajectories)[0], DRAWS.students(0, PAIRS)[0]

    def two_pass(encode: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return lambda: two_pass_gradient(data, rates, segment, steps, encode, heads.student, objective)

    return {
        "lower bound": lambda: _forward_and_backward(encoder, data.images),
        "encode once (this engine, a whole iteration)": lambda: ours.iterate(0),
        "two passes, encoder as it comes": two_pass(plain),
        "two passes, folded and channels-last encoder": two_pass(encoder.encode),
    }


def _forward_and_backward(encoder: ImageEncoder, images: Tensor) -> None:
    """One forward and one input-backward pass over every image, in the chunks that the engine uses."""
    for part in images.split(CHUNK):
        leaf = part.detach().requires_grad_()
        features = encoder.encode(leaf)
        torch.autograd.grad(features, leaf, torch.ones_like(features))
