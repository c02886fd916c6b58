"""Random operations against slow definitions of what OpenCV and Pillow do, and how they are drawn."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from repblend.data.rand_augment import OPERATIONS, RandomOperations
from repblend.params.experts import AugmentOp

WIDTH, HEIGHT, GREY = 14, 11, 128


def some_image(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(20, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def value_at(pixels: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear, grey outside, from the definition."""
    left, top, total = math.floor(x), math.floor(y), np.zeros(3)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        inside = 0 <= column < WIDTH and 0 <= row < HEIGHT
        total += (1 - abs(x - column)) * (1 - abs(y - row)) * (pixels[row, column] if inside else GREY)
    return total


def turned(strength: float, x: float, y: float) -> tuple[float, float]:
    cos, sin, x, y = math.cos(math.radians(30 * strength)), math.sin(math.radians(30 * strength)), x - 7, y - 5.5
    return 7 + cos * x - sin * y, 5.5 + sin * x + cos * y


@pytest.mark.parametrize("strength", [-1.0, -0.5, 0.5, 0.31])
@pytest.mark.parametrize(("name", "origin"), [
    ("ShearX", lambda s, x, y: (x - 0.3 * s * y, y)), ("ShearY", lambda s, x, y: (x, y - 0.3 * s * x)),
    ("TranslateX", lambda s, x, y: (x + 10 * s, y)), ("TranslateY", lambda s, x, y: (x, y + 10 * s)),
    ("Rotate", turned)])
def test_moves_take_each_pixel_from_where_it_was(name: str, origin, strength: float) -> None:
    image = some_image()
    found, pixels = np.asarray(OPERATIONS[name](image, strength)), np.asarray(image)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            assert np.abs(found[y, x] - value_at(pixels, *origin(strength, x, y))).max() <= 0.5 + 1e-6


def test_a_shift_by_whole_pixels_is_exact() -> None:
    pixels = np.asarray(some_image())
    shifted = np.asarray(OPERATIONS["TranslateX"](some_image(), 0.5))
    assert (shifted[:, :-5] == pixels[:, 5:]).all() and (shifted[:, -5:] == GREY).all()
    shifted = np.asarray(OPERATIONS["TranslateY"](some_image(), -0.3))
    assert (shifted[3:] == pixels[:-3]).all() and (shifted[:3] == GREY).all()


def test_a_quarter_turn_goes_anticlockwise_about_a_point_half_a_pixel_off_the_centre() -> None:
    square = some_image().resize((8, 8))
    result = np.asarray(OPERATIONS["Rotate"](square, 3.0))
    assert (result[1:] == np.rot90(np.asarray(square))[:-1]).all() and (result[0] == GREY).all()


def test_autocontrast_stretches_each_channel_to_the_full_range() -> None:
    pixels = np.asarray(some_image()).astype(float)
    low, high = pixels.min((0, 1)), pixels.max((0, 1))
    expected = np.floor((pixels - low) * 255 / (high - low) + 1e-9)
    assert np.abs(np.asarray(OPERATIONS["AutoContrast"](some_image(), 0.5)) - expected).max() <= 1
    flat = Image.new("RGB", (4, 4), (7, 80, 200))
    assert OPERATIONS["AutoContrast"](flat, 0.5).tobytes() == flat.tobytes()


def test_equalize_gives_each_value_its_rank() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(90, 120, (64, 64, 3), dtype=np.uint8))
    found, pixels = np.asarray(OPERATIONS["Equalize"](image, 0.5)), np.asarray(image)
    for channel in range(3):
        values, equalized = pixels[..., channel], found[..., channel]
        step = int((values < values.max()).sum()) // 255
        for value in np.unique(values):
            expected = min(255, (step // 2 + int((values < value).sum())) // step)
            assert (equalized[values == value] == expected).all()


@pytest.mark.parametrize("magnitude", range(11))
def test_brightness_and_sharpness_are_pillows_at_the_factor_of_the_magnitude(magnitude: int) -> None:
    image, factor = some_image(), magnitude / 10 * 1.8 + 0.1
    for strength in (magnitude / 10, -magnitude / 10):
        brighter = np.asarray(OPERATIONS["Brightness"](image, strength)).astype(int)
        assert np.abs(brighter - np.asarray(ImageEnhance.Brightness(image).enhance(factor))).max() <= 1
        sharper = np.asarray(OPERATIONS["Sharpness"](image, strength)).astype(int)
        expected = np.asarray(ImageEnhance.Sharpness(image).enhance(factor))
        assert np.abs(sharper - expected)[1:-1, 1:-1].max() <= 1
        assert (sharper[0] == np.asarray(image)[0]).all() and (sharper[:, -1] == np.asarray(image)[:, -1]).all()


def test_the_published_magnitude_leaves_brightness_and_sharpness_as_they_are() -> None:
    for name in ("Brightness", "Sharpness", "Identity"):
        assert OPERATIONS[name](some_image(), 0.5).tobytes() == some_image().tobytes()


def test_half_of_the_drawn_operations_are_applied_in_either_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    applied: Counter[tuple[str, float]] = Counter()
    for name in ("ShearX", "Rotate", "Equalize"):
        monkeypatch.setitem(OPERATIONS, name,
                            lambda image, strength, name=name: applied.update([(name, strength)]) or image)
    augment, generator = RandomOperations(2, 5, ["ShearX", "Rotate", "Equalize"]), torch.Generator().manual_seed(0)
    for _ in range(3000):
        augment(some_image(), generator)
    assert set(applied) == {(name, sign * 0.5) for name in ("ShearX", "Rotate", "Equalize") for sign in (-1, 1)}
    assert list(applied.values()) == [pytest.approx(500, abs=70)] * 6  # 3000 x 2 draws x 1/3 x 1/2 x 1/2


def test_one_generator_state_gives_one_image() -> None:
    augment = RandomOperations(2, 5, list(OPERATIONS))
    images = [augment(some_image(), torch.Generator().manual_seed(seed)).tobytes() for seed in (1, *range(20))]
    assert images[0] == images[2] and len(set(images)) > 8


def test_parameters_know_every_operation() -> None:
    assert set(AugmentOp.__args__) == set(OPERATIONS)
