"""Augmented views against torchvision's crop and resize, and the streams they are drawn from."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import hflip, resized_crop

from repblend.data.views import draw_crop, make_view
from repblend.streams import stream


def some_images(number: int = 4, size: int = 32) -> torch.Tensor:
    return torch.rand(number, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_view_zero_is_the_image_itself() -> None:
    images = some_images()
    assert torch.equal(make_view(images, 0, 0.5, 1.0, seed=3), images)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_view_is_torchvisions_crop_of_the_drawn_box(flip: float) -> None:
    images = some_images()
    views = make_view(images, 2, 0.5, flip, seed=3)
    for number, (image, view) in enumerate(zip(images, views, strict=True)):
        top, left, height, width = draw_crop(32, 0.5, stream(3, "view", 2, number))
        expected = resized_crop(image, top, left, height, width, [32, 32], InterpolationMode.BILINEAR, antialias=True)
        assert torch.allclose(view, hflip(expected) if flip else expected, atol=1e-6)


def test_a_view_does_not_depend_on_the_other_images() -> None:
    images = some_images(6)
    assert torch.equal(make_view(images, 1, 0.5, 0.5, seed=0)[:2], make_view(images[:2], 1, 0.5, 0.5, seed=0))


def test_views_repeat_and_differ_by_view_and_by_seed() -> None:
    images = some_images()
    first = make_view(images, 1, 0.5, 0.5, seed=0)
    assert torch.equal(first, make_view(images, 1, 0.5, 0.5, seed=0))
    assert not torch.equal(first, make_view(images, 2, 0.5, 0.5, seed=0))
    assert not torch.equal(first, make_view(images, 1, 0.5, 0.5, seed=1))


def test_crops_lie_in_the_image_and_keep_the_share_and_shape_asked_for() -> None:
    generator, size = torch.Generator().manual_seed(0), 64
    shares, aspects, centres = [], [], []
    for _ in range(4000):
        top, left, height, width = draw_crop(size, 0.5, generator)
        assert 0 <= top <= size - height and 0 <= left <= size - width
        shares.append(height * width / size**2)
        aspects.append(math.log(width / height))
        centres.append((top + height / 2) / size)
    # Sides longer than the image are cut, which takes a little from the largest crops: the mean is just below 0.75.
    assert 0.46 < min(shares) < 0.56 and max(shares) <= 1
    assert 0.70 < sum(shares) / 4000 < 0.75
    assert max(map(abs, aspects)) < math.log(4 / 3) + 0.05 and abs(sum(aspects) / 4000) < 0.01
    assert abs(sum(centres) / 4000 - 0.5) < 0.01


def test_about_the_share_asked_for_is_flipped() -> None:
    ramp = torch.arange(16.0).expand(400, 3, 16, 16)
    views = make_view(ramp, 1, 1.0, 0.3, seed=0)
    flipped = (views[:, 0, 0, 0] > views[:, 0, 0, -1]).float().mean().item()
    assert flipped == pytest.approx(0.3, abs=0.07)
