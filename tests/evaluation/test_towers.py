"""Two-tower models: the image encoder as a function of its parameters, and both kinds of students."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from repblend.encoders.heads import HeadSpec, apply_head
from repblend.encoders.image import ImageEncoder
from repblend.evaluation.protocol import Evaluator
from repblend.evaluation.student import Recipe
from repblend.evaluation.towers import EncoderAndHead, HeadPair, one_by_one
from repblend.matching.blending import Blend
from repblend.matching.gradient import (
    NORMALISERS,
    SECOND_ORDER,
    MatchingGradient,
    Segment,
    constant_memory_gradient,
    unrolled_gradient,
    with_fastest_second_order,
)
from repblend.matching.losses import LOSSES, cosine_logits
from repblend.matching.similarity import LowRankSimilarity
from repblend.matching.student import InnerStep, PerModality, StudentLoss, SyntheticData, inner_loss
from tests.pretend_gpu import pretend_gpu


class Convolutional(nn.Module):
    """A small encoder with what real ones have: convolutions (one grouped), BatchNorm, a pool, a linear layer.

    PyTorch has no forward derivative of SiLU's backward pass, which NFNets need; it has GELU's.
    """

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.activation = activation()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.linear = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.activation(self.norm(self.conv(images)))
        return self.linear(self.activation(self.depthwise(hidden)).mean(dim=(2, 3)))


@pytest.fixture(params=[nn.GELU, nn.SiLU])
def encoder(request: pytest.FixtureRequest) -> ImageEncoder:
    return convolutional_encoder(request.param)


def convolutional_encoder(activation: type[nn.Module]) -> ImageEncoder:
    draws = torch.Generator().manual_seed(4)
    module = Convolutional(activation)
    for value in [*module.parameters(), module.norm.running_mean]:
        value.data = torch.randn(value.shape, generator=draws)
    module.norm.running_var = torch.rand(4, generator=draws) + 0.5
    return ImageEncoder(module.double(), 5, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_the_encoder_with_its_own_parameters_is_the_encoder(encoder: ImageEncoder) -> None:
    images = torch.randn(6, 3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(encoder.encode_with(images, encoder.parameters()), encoder.encode(images))


def test_every_parameter_has_its_place_in_the_flat_vector(encoder: ImageEncoder) -> None:
    images = torch.randn(2, 3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flat = encoder.parameters()
    assert flat.shape == (3 * 4 * 9 + 4 + 4 * 9 + 4 + 4 * 5 + 5,)
    changed = [not torch.equal(encoder.encode_with(images, flat.index_fill(0, torch.tensor([place]), 3.0)),
                               encoder.encode(images)) for place in range(len(flat))]
    assert all(changed)


class Attentive(nn.Module):
    """A small encoder with attention, as vision transformers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mix = nn.Conv2d(3, 6, 2, stride=2), nn.Linear(2, 5)

    def forward(self, images: Tensor) -> Tensor:
        parts = self.patches(images).flatten(2).mT.chunk(3, dim=-1)  # three of (B, T, 2)
        return self.mix(nn.functional.scaled_dot_product_attention(*(part[:, None] for part in parts))[:, 0].mean(1))


def problem(encoder: ImageEncoder) -> tuple:
    draws = torch.Generator().manual_seed(1)
    towers = EncoderAndHead(encoder, HeadSpec(3, 5))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws, dtype=torch.float64)

    start = PerModality(*(side.double() for side in towers.initial(draws, draws)))
    segment = Segment(start, PerModality(*(side + 0.1 * normal(*side.shape) for side in start)))
    similarity = LowRankSimilarity(normal(6), normal(6, 2), normal(6, 2), 1.5)
    data = SyntheticData(normal(6, 3, 5, 5), normal(6, 3), similarity)
    steps = [InnerStep(torch.tensor(rows), Blend(0.3, torch.tensor([1, 2, 0]))) for rows in ([0, 1, 2], [2, 4, 5])]
    rates = PerModality(torch.tensor(0.02, dtype=torch.float64), torch.tensor(0.03, dtype=torch.float64))
    objective = StudentLoss(LOSSES["infonce"], 0.5)
    student = with_fastest_second_order(towers.student, data.rows(steps[0].indices), start, objective)
    return data, rates, segment, steps, student, objective, NORMALISERS["separate"]


def test_the_way_to_differentiate_is_chosen_by_what_pytorch_can_do() -> None:
    students = [problem(convolutional_encoder(activation))[4] for activation in (nn.GELU, nn.SiLU)]
    assert [student.second_order for student in students] == ["forward-over-reverse", "double-backward"]


def test_the_chosen_way_agrees_with_differentiating_the_encoders_backward_pass(encoder: ImageEncoder) -> None:
    data, rates, segment, steps, student, *rest = problem(encoder)
    ours, theirs = (constant_memory_gradient(data, rates, segment, steps, each, *rest)
                    for each in (student, student._replace(second_order="double-backward")))
    for name, value in ours.data.items():
        torch.testing.assert_close(value, theirs.data[name], rtol=1e-9, atol=1e-12, msg=name)
        assert value.abs().max() > 0


@pytest.mark.parametrize("gradient", [constant_memory_gradient, unrolled_gradient])
def test_an_encoder_with_attention_can_be_matched(gradient: Callable[..., MatchingGradient]) -> None:
    draws, module = torch.Generator().manual_seed(4), Attentive().double()
    for value in module.parameters():
        value.data = torch.randn(value.shape, generator=draws, dtype=torch.float64)
    data, rates, segment, steps, student, *rest = problem(ImageEncoder(module, 5, (0.5,) * 3, (0.5,) * 3))
    ways = [gradient(data, rates, segment, steps, student._replace(second_order=name), *rest).data
            for name in SECOND_ORDER]
    for name, value in ways[0].items():
        torch.testing.assert_close(value, ways[1][name], rtol=1e-9, atol=1e-12, msg=name)
        assert value.abs().max() > 0


def test_the_unrolled_pixel_gradient_agrees_with_finite_differences(encoder: ImageEncoder) -> None:
    data, *rest = problem(encoder)
    gradient = unrolled_gradient(data, *rest).data["images"]
    direction = torch.randn(gradient.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))

    def loss_at(distance: float) -> float:
        moved = SyntheticData(data.images + distance * direction, data.texts, data.similarity)
        return sum(unrolled_gradient(moved, *rest).losses).item()

    assert (gradient * direction).sum().item() == pytest.approx((loss_at(1e-5) - loss_at(-1e-5)) / 2e-5, rel=1e-6)


def test_blending_acts_on_the_trained_encoders_output(encoder: ImageEncoder) -> None:
    data, _, segment, steps, student, objective, _ = problem(encoder)
    seen = []
    spy = StudentLoss(lambda logits, target: seen.append(logits) or logits.sum(), objective.temperature)
    inner_loss(student, segment.start, data.rows(steps[0].indices), steps[0], spy)
    features, texts = encoder.encode(data.images[:3]), data.texts[:3]
    images, texts = (0.3 * x + 0.7 * x[[1, 2, 0]] for x in (features, texts))
    expected = cosine_logits(images, apply_head(texts, segment.start.txt, HeadSpec(3, 5)), 0.5)
    torch.testing.assert_close(seen[0], expected, rtol=1e-12, atol=1e-14)


def test_one_by_one_is_vmap() -> None:
    draws = torch.Generator().manual_seed(0)
    rows, flats = torch.randn(3, 4, 2, generator=draws), torch.randn(3, 2, generator=draws)
    tower = lambda x, flat: torch.sin(x * flat)  # noqa: E731
    torch.testing.assert_close(one_by_one(tower)(rows, flats), torch.func.vmap(tower)(rows, flats))


def test_on_a_gpu_only_one_of_them_at_a_time_keeps_its_activations() -> None:
    draws, kept = torch.Generator().manual_seed(0), []
    rows, flats = torch.randn(3, 4, 2, generator=draws), torch.randn(3, 2, generator=draws)

    def tower(x: Tensor, flat: Tensor) -> Tensor:
        inner = x * flat
        kept.append(weakref.ref(inner))
        return torch.sin(inner)  # its derivative needs what went in

    def gradient(device: str) -> tuple[Tensor, int]:
        kept.clear()
        leaf = flats.to(device).clone().requires_grad_()
        result = one_by_one(tower)(rows.to(device), leaf)
        alive = sum(reference() is not None for reference in kept)
        return torch.autograd.grad(result.sum(), leaf)[0], alive

    here, alive_here = gradient("cpu")
    with pretend_gpu():
        there, alive_there = gradient("cuda")
    assert (alive_here, alive_there) == (3, 0)
    assert torch.equal(here, there)


class DoubleTowers(EncoderAndHead):
    """In float64, as the encoder is here."""

    def initial(self, image_generator: torch.Generator, text_generator: torch.Generator) -> PerModality:
        return PerModality(*(side.double() for side in super().initial(image_generator, text_generator)))


def test_students_that_train_the_encoder_learn_a_set_and_do_not_mix_their_seeds(encoder: ImageEncoder) -> None:
    draws, losses = torch.Generator().manual_seed(0), {1: [], 2: []}
    images, texts = (torch.randn(*shape, generator=draws, dtype=torch.float64) for shape in ((5, 3, 6, 6), (5, 3)))
    recipe = Recipe(0.05, 0.05, 0.9, 0.0, "infonce", 0.1, None)
    towers = DoubleTowers(encoder, HeadSpec(3, 5))
    for seeds, seen in losses.items():
        Evaluator({}, towers, 3, seeds, 60, 2, 8).evaluate_set(
            images, texts, torch.eye(5, dtype=torch.float64), recipe, lambda _, __, loss, seen=seen: seen.append(loss))
    alone, together = (torch.stack(seen) for seen in losses.values())
    torch.testing.assert_close(alone[:, 0], together[:, 0], rtol=1e-9, atol=0)
    assert (together[-1] < together[0] / 2).all()
    assert not torch.equal(together[:, 0], together[:, 1])


def test_heads_show_images_as_they_are() -> None:
    assert HeadPair(HeadSpec(4, 2), HeadSpec(3, 2)).student.represent(rows := torch.ones(1), rows) is rows
