"""The published transform against torchvision's own classes, from the same state of a generator."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from repblend.data.published_views import PublishedView, as_it_is, draw_box
from repblend.data.rand_augment import RandAugment

SIZE, SEEDS = 24, range(40)


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
        transforms.RandomResizedCrop(SIZE, (0.5, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(), transforms.ToTensor()])
    ours = PublishedView(SIZE, 0.5, 0.5, as_it_is)
    for seed in SEEDS:
        expected = under_global_seed(seed, lambda: theirs(some_image()))
        assert torch.equal(ours(some_image(), torch.Generator().manual_seed(seed)), expected)


def test_operations_follow_crop_and_flip() -> None:
    operations = RandAugment(2, 5, ["Rotate", "Equalize"])
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        plain = PublishedView(SIZE, 0.5, 0.5, as_it_is)(some_image(), generator)
        as_image = Image.fromarray((plain * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
        expected = torch.from_numpy(np.array(operations(as_image, generator))).permute(2, 0, 1) / 255
        found = PublishedView(SIZE, 0.5, 0.5, operations)(some_image(), torch.Generator().manual_seed(seed))
        assert torch.equal(found, expected)
