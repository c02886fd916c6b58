"""The engine against the published two-pass procedure, with an encoder in the loop."""

import torch
from torch import Tensor

from benchmarks.two_pass import two_pass_gradient
from repblend.encoders.heads import HeadSpec, apply_head, init_head
from repblend.matching.batches import draw_batches
from repblend.matching.encode_once import KeptGraph
from repblend.matching.gradient import Segment, constant_memory_gradient, separate_normalisers
from repblend.matching.losses import LOSSES
from repblend.matching.perturbation import draw_blend
from repblend.matching.similarity import LowRankSimilarity
from repblend.matching.step import InnerStep, Objective, PerModality, Student, SyntheticData

IMAGE, TEXT = HeadSpec(5, 4), HeadSpec(3, 4)
STUDENT = Student(lambda x, flat: apply_head(x, flat, IMAGE), lambda x, flat: apply_head(x, flat, TEXT))


def test_encoding_once_gives_the_pixel_gradient_of_the_two_pass_procedure() -> None:
    draws = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws, dtype=torch.float64)

    weight = normal(12, 5)
    encode = lambda images: torch.tanh(images.flatten(1) @ weight).square() + 0.1 * images.flatten(1)[:, :5]  # noqa: E731
    images, texts = normal(7, 3, 2, 2), normal(7, 3)
    similarity = LowRankSimilarity(normal(7), normal(7, 2), normal(7, 2), 1.5)
    segment = Segment(*(PerModality(init_head(IMAGE, draws).double(), init_head(TEXT, draws).double())
                        for _ in range(2)))
    rates = PerModality(torch.tensor(0.05, dtype=torch.float64), torch.tensor(0.03, dtype=torch.float64))
    steps = [InnerStep(rows, draw_blend(4, draws, 1.0)) for rows in draw_batches(7, 5, 4, draws)]
    objective = Objective(LOSSES["wbce"], 0.3)

    loss, expected = two_pass_gradient(SyntheticData(images, texts, similarity), rates, segment, steps, encode,
                                       STUDENT, objective)

    once = KeptGraph(images, torch.arange(7), encode, 3)
    ours = constant_memory_gradient(SyntheticData(once.features(), texts, similarity), rates, segment, steps, STUDENT,
                                    objective, separate_normalisers)
    torch.testing.assert_close(sum(ours.losses), loss, rtol=1e-10, atol=0)
    for name, value in (ours.data | {"images": once.pull_back(ours.data["images"])}).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12, msg=name)
