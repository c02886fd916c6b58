"""Views against torchvision's functions and its classes (from the same state of a generator), and their streams."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import hflip, resized_crop

from repblend.data.image_store import FolderStore
from repblend.data.images import read_images
from repblend.data.rand_augment import RandomOperations
from repblend.data.views import CropOfSquare, PublishedView, ViewSource, as_it_is, draw_box, draw_crop
from repblend.streams import stream

NUM_IMAGES, SIZE = 4, 32
NAMES = [f"{number}.png" for number in range(NUM_IMAGES)]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    draws = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(draws.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(tmp_path / name)
    return FolderStore(tmp_path)


def views_of(store: FolderStore, view: int, flip: float = 0.5, seed: int = 0) -> torch.Tensor:
    source = ViewSource(store, NAMES, SIZE, CropOfSquare(SIZE, 0.5, flip), seed)
    return torch.stack([source.view(number, view) for number in range(NUM_IMAGES)])


def test_view_zero_is_the_image_itself(store: FolderStore) -> None:
    assert torch.equal(views_of(store, 0, flip=1.0), read_images(store, NAMES, SIZE))


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_view_is_torchvisions_crop_of_the_drawn_box(store: FolderStore, flip: float) -> None:
    images, views = read_images(store, NAMES, SIZE), views_of(store, 2, flip, seed=3)
    for number, (image, view) in enumerate(zip(images, views, strict=True)):
        top, left, height, width = draw_crop(SIZE, 0.5, stream(3, "view", 2, number))
        expected = resized_crop(image, top, left, height, width, [SIZE, SIZE], InterpolationMode.BILINEAR,
                                antialias=True)
        assert torch.allclose(view, hflip(expected) if flip else expected, atol=1e-6)


def test_views_repeat_and_differ_by_view_and_by_seed(store: FolderStore) -> None:
    first = views_of(store, 1)
    assert torch.equal(first, views_of(store, 1))
    assert not torch.equal(first, views_of(store, 2))
    assert not torch.equal(first, views_of(store, 1, seed=1))


def test_all_views_of_an_image_are_the_single_ones(store: FolderStore) -> None:
    source = ViewSource(store, NAMES, SIZE, CropOfSquare(SIZE, 0.5, 0.5), seed=0)
    assert torch.equal(source.views(2, 3), torch.stack([source.view(2, view) for view in range(3)]))


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
    augment = CropOfSquare(16, 1.0, 0.3)
    views = torch.stack([augment.crop(image, stream(0, "view", number)) for number, image in enumerate(ramp)])
    flipped = (views[:, 0, 0, 0] > views[:, 0, 0, -1]).float().mean().item()
    assert flipped == pytest.approx(0.3, abs=0.07)


# The released code's transform.

CROP, SEEDS = 24, range(40)


def some_image(width: int = 50, height: int = 37) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def under_global_seed(seed: int, call: Callable[[], object]) -> object:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return call()


@pytest.mark.parametrize(("width", "height"), [(50, 37), (37, 50), (40, 40), (200, 9), (9, 200), (1, 1)])
@pytest.mark.parametrize("scale_min", [0.5, 0.08, 1.0])
def test_boxes_are_torchvisions(width: int, height: int, scale_min: float) -> None:
    for seed in SEEDS:
        top, left, h, w = under_global_seed(seed, lambda: transforms.RandomResizedCrop.get_params(
            some_image(width, height), [scale_min, 1.0], [3 / 4, 4 / 3]))
        assert draw_box(width, height, scale_min, torch.Generator().manual_seed(seed)) == (left, top, left + w, top + h)


def test_crop_and_flip_are_torchvisions() -> None:
    theirs = transforms.Compose([
        transforms.RandomResizedCrop(CROP, (0.5, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(), transforms.ToTensor()])
    ours = PublishedView(CROP, 0.5, 0.5, as_it_is)
    for seed in SEEDS:
        expected = under_global_seed(seed, lambda: theirs(some_image()))
        assert torch.equal(ours(some_image(), torch.Generator().manual_seed(seed)), expected)


def test_operations_follow_crop_and_flip() -> None:
    operations = RandomOperations(2, 5, ["Rotate", "Equalize"])
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        plain = PublishedView(CROP, 0.5, 0.5, as_it_is)(some_image(), generator)
        as_image = Image.fromarray((plain * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
        expected = torch.from_numpy(np.array(operations(as_image, generator))).permute(2, 0, 1) / 255
        found = PublishedView(CROP, 0.5, 0.5, operations)(some_image(), torch.Generator().manual_seed(seed))
        assert torch.equal(found, expected)
