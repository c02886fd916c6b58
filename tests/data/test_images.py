"""Reading, normalising and showing images, and reading ahead: in order for any number of threads, few at a time."""

import io
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repblend.data.image_store import FolderStore
from repblend.data.images import normalise, png_bytes, prefetched, read_image, read_images

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])


def random_pixels(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_an_image_of_the_right_size_is_read_pixel_by_pixel(tmp_path: Path) -> None:
    pixels = random_pixels(16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.stack([pixels[:, :, channel] for channel in range(3)]).astype(np.float32) / 255
    assert np.array_equal(read_image(FolderStore(tmp_path), "a.png", 16).numpy(), expected)


def test_resizing_keeps_flat_colours_and_gives_the_size_asked_for(tmp_path: Path) -> None:
    Image.new("RGB", (37, 20), (10, 200, 30)).save(tmp_path / "a.png")
    image = read_image(FolderStore(tmp_path), "a.png", 24)
    assert image.shape == (3, 24, 24)
    assert torch.equal(image.flatten(1).amin(1), torch.tensor([10.0, 200.0, 30.0]) / 255)
    assert torch.equal(image.flatten(1).amax(1), torch.tensor([10.0, 200.0, 30.0]) / 255)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(random_pixels(8)).convert(mode).save(path)
    assert read_image(FolderStore(tmp_path), path.name, 8).shape == (3, 8, 8)


def test_images_keep_the_order_of_their_names(tmp_path: Path) -> None:
    for name, level in (("a", 10), ("b", 20), ("c", 30)):
        Image.new("RGB", (4, 4), (level,) * 3).save(tmp_path / f"{name}.png")
    images = read_images(FolderStore(tmp_path), ["c.png", "a.png", "b.png"], 4)
    assert (images[:, 0, 0, 0] * 255).round().tolist() == [30, 10, 20]


def test_normalising_and_showing_are_inverse(tmp_path: Path) -> None:
    pixels = random_pixels(9)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = normalise(read_image(FolderStore(tmp_path), "a.png", 9), MEAN, STD)
    assert image[1, 2, 3].item() == pytest.approx((pixels[2, 3, 1] / 255 - 0.4) / 0.25, rel=1e-5)
    shown = np.array(Image.open(io.BytesIO(png_bytes(image, MEAN, STD))))
    assert np.array_equal(shown, pixels)


def test_showing_cuts_off_values_out_of_range() -> None:
    image = torch.stack([torch.full((2, 2), value) for value in (-100.0, 0.0, 100.0)])
    shown = np.array(Image.open(io.BytesIO(png_bytes(image, MEAN, STD))))
    assert shown[0, 0].tolist() == [0, 102, 255]


def damaged_png(cut: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(random_pixels(64)).save(file, "PNG")
    return file.getvalue()[:cut]


@pytest.mark.parametrize("content", [b"", b"not an image", damaged_png(20), damaged_png(60), damaged_png(6000),
                                     damaged_png(2000) + b"\0" * 4000])
def test_a_damaged_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.png: expected a whole image file .*Replace it"):
        read_images(FolderStore(tmp_path), ["bad.png"], 64)


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    content = bytearray(damaged_png(10**6))
    content[3000] ^= 0xFF
    (tmp_path / "bad.png").write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"bad\.png: expected a whole image file"):
        read_image(FolderStore(tmp_path), "bad.png", 64)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.png: no such image"):
        read_images(FolderStore(tmp_path), ["gone.png"], 8)


def test_an_image_of_absurd_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"huge\.png: expected a whole image file"):
        read_image(FolderStore(tmp_path), "huge.png", 8)


@pytest.mark.parametrize("workers", [1, 3, 8])
@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_results_come_in_order_whatever_finishes_first(workers: int, ahead: int) -> None:
    delays = [random.Random(0).uniform(0, 0.004) for _ in range(60)]

    def make(number: int) -> int:
        time.sleep(delays[number])
        return number**2

    assert list(prefetched(make, range(60), workers, ahead)) == [(number, number**2) for number in range(60)]


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (3, 2), (4, 0)])
def test_no_more_items_are_taken_than_asked_for(workers: int, ahead: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    for used, _ in enumerate(prefetched(str, items(), workers, ahead)):
        assert len(taken) - used <= workers + ahead
    assert len(taken) == 40


def test_all_workers_work_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=10)
    assert [made for _, made in prefetched(lambda _: together.wait() >= 0, range(8), workers=4)] == [True] * 8


def test_an_error_comes_when_its_item_is_due_and_stops_the_rest() -> None:
    begun: list[int] = []

    def make(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("image 3 is damaged")
        return number

    seen = []
    with pytest.raises(ValueError, match="image 3"):
        for number, _ in prefetched(make, range(1000), workers=2, ahead=1):
            seen.append(number)
    assert seen == [0, 1, 2] and max(begun) <= 6


def test_an_abandoned_read_ahead_ends_its_threads() -> None:
    results = prefetched(str, range(1000), workers=2)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
