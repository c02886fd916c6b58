"""Encoding once is exact: the same pixel gradient as encoding an image again every time it is drawn."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repblend.matching.encode_once import ENCODER_GRAPHS

GENERATOR = torch.Generator().manual_seed(5)
WEIGHT = torch.randn(7, 3, 3, 3, generator=GENERATOR, dtype=torch.float64)
IMAGES = torch.randn(9, 3, 6, 6, generator=GENERATOR, dtype=torch.float64)
BATCHES = [torch.tensor(rows) for rows in ([0, 3, 5], [5, 8, 1], [3, 0, 8])]


def encode(images: Tensor) -> Tensor:
    return torch.tanh(F.conv2d(images, WEIGHT)).mean(dim=(2, 3))


def total(features: Tensor, number: int) -> Tensor:
    """Something nonlinear that differs from step to step, as the student's loss does."""
    return (features.square() * torch.linspace(-1, number + 1, features.numel(), dtype=features.dtype).view_as(
        features)).sum()


@pytest.mark.parametrize("graph", ENCODER_GRAPHS)
@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_pull_back_equals_encoding_every_drawn_image_again(graph: str, chunk: int) -> None:
    pixels = IMAGES.clone().requires_grad_()
    again = sum(total(encode(pixels[rows]), number) for number, rows in enumerate(BATCHES))
    (expected,) = torch.autograd.grad(again, pixels)

    once = ENCODER_GRAPHS[graph](IMAGES, torch.cat(BATCHES).unique(), encode, chunk)
    features = once.features().requires_grad_()
    (feature_gradient,) = torch.autograd.grad(
        sum(total(features[rows], number) for number, rows in enumerate(BATCHES)), features)
    ours = once.pull_back(feature_gradient)

    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)
    assert ours[[2, 4, 6, 7]].abs().max() == 0


@pytest.mark.parametrize("graph", ENCODER_GRAPHS)
def test_features_of_drawn_images_are_the_encoders_and_carry_no_graph(graph: str) -> None:
    features = ENCODER_GRAPHS[graph](IMAGES, torch.tensor([1, 4]), encode, 1).features()
    torch.testing.assert_close(features[[1, 4]], encode(IMAGES[[1, 4]]), rtol=1e-12, atol=1e-14)
    assert not features.requires_grad
    assert features[[0, 2, 3, 5, 6, 7, 8]].abs().max() == 0
