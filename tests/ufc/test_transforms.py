"""T: shifts and crops against an image library's and against loops."""

import pytest
import torch
from torchvision.transforms.v2 import functional

from repblend.streams import stream
from repblend.ufc.params import Augmentation
from repblend.ufc.transforms import Resample, augmented, draw_box, draw_crop_flip_shift, draw_shift, interpolation


def images(size: int = 12) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=stream(1, "tests"))


def test_a_shift_is_circular_and_reaches_both_ends() -> None:
    offsets = {tuple(draw_shift(8, 2, stream(0, "tests", number))) for number in range(100)}
    assert offsets == {(down, right) for down in range(3) for right in range(3)}
    before, after = images(8), draw_shift(8, 3, stream(2, "tests"))
    down, right = after
    assert after(before)[1, 2, (1 + down) % 8, (7 + right) % 8] == before[1, 2, 1, 7]


@pytest.mark.parametrize(("top", "left", "height", "width"), [(0, 0, 12, 12), (2, 5, 7, 3), (1, 0, 4, 12)])
def test_matrices_are_the_resized_crop_of_an_image_library(top: int, left: int, height: int, width: int) -> None:
    expected = functional.resized_crop(images(), top, left, height, width, [12, 12], antialias=True)
    found = Resample(interpolation(top, height, 12), interpolation(left, width, 12))(images())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_drawn_crop_is_flipped_and_shifted_as_images_are() -> None:
    seen = set()
    for number in range(40):
        still = draw_crop_flip_shift(12, 0, stream(0, "tests", number))
        moved = draw_crop_flip_shift(12, 5, stream(0, "tests", number))
        candidates = {(flip, down, right): torch.roll(base, (down, right), (2, 3))
                      for flip, base in ((False, still(images())), (True, still(images()).flip(3)))
                      for down in range(6) for right in range(6)}
        matching = [key for key, value in candidates.items() if torch.allclose(value, moved(images()), atol=1e-5)]
        assert matching and not matching[0][0]  # the same flip was drawn, so none is left between them
        seen.add(matching[0])
    assert len(seen) > 15


def test_crops_keep_their_published_range() -> None:
    shares, ratios = [], []
    for number in range(300):
        rows = draw_crop_flip_shift(64, 0, stream(5, "tests", number))
        height, width = ((matrix > 0).any(0).sum().item() for matrix in (rows.rows, rows.columns))
        shares.append(height * width / 64 ** 2)
        ratios.append(width / height)
    assert 0.07 < min(shares) < 0.13 and 0.85 < max(shares) <= 1
    assert 0.65 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.5


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_resized_crops_of_training_are_an_image_librarys_of_boxes_of_their_own(flip: float) -> None:
    pixels = torch.randint(0, 256, (5, 3, 12, 12), dtype=torch.uint8, generator=stream(2, "tests"))
    found = augmented(pixels, Augmentation(crop="resized", crop_padding=0, flip=flip), stream(3, "tests"))
    draws = stream(3, "tests")
    boxes = [draw_box(12, draws) for _ in pixels]
    assert len(set(boxes)) == 5
    for seen, image, box in zip(found, pixels, boxes, strict=True):
        expected = functional.resized_crop(image.float() / 255, *box, [12, 12], antialias=True)
        torch.testing.assert_close(seen, expected.flip(-1) if flip else expected, rtol=1e-5, atol=1e-5)
