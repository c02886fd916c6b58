"""Integrated sets: every slot against its formula, files as released, PNG exact, JPEG as Pillow writes it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repblend.store import read_json
from repblend.streams import stream
from repblend.ufc import integration
from repblend.ufc.data import NORMALISATIONS, ImageFiles, InitialImages, write_initial_images
from repblend.ufc.generation import Compensators
from repblend.ufc.integration import Budget, read_image_set, to_bytes, write_images, write_integrated
from repblend.ufc.validation import Lesson
from tests.ufc.small import generation, labelled, validation

NORMALISATION = NORMALISATIONS["cifar10"]
BUDGET = Budget(3, 4, 2)  # two real images of each of four classes, four compensators


@pytest.fixture
def initial(tmp_path: Path) -> InitialImages:
    return write_initial_images(tmp_path / "initial", labelled(6), range(3), seed=1)


def compensators() -> dict[str, Compensators]:
    generator = torch.Generator().manual_seed(0)
    return {name: Compensators(torch.randn(3, 3, 8, 8, generator=generator), {}, 4)
            for name in ("first", "second")}


def expected_bytes(real: np.ndarray, u: np.ndarray) -> np.ndarray:
    """clip(x + u) in normalised space, de-normalised, the fraction cut off; in float64."""
    mean, std = (np.array(values)[:, None, None] for values in (NORMALISATION.mean, NORMALISATION.std))
    normalised = (real / 255 - mean) / std + u
    return (np.clip(normalised, -mean / std, (1 - mean) / std) * std + mean) * 255


def test_every_slot_is_what_its_number_says(initial: InitialImages, tmp_path: Path) -> None:
    made = compensators()
    write_integrated(tmp_path / "set", initial, made, BUDGET, NORMALISATION, generation(quantisation="png"))
    found = read_image_set(tmp_path / "set")
    assert found.images.shape == (24, 3, 8, 8) and found.labels.tolist() == [c for c in range(4) for _ in range(6)]
    for label in range(4):
        for slot in range(6):
            real = initial.read(slot % 2)[label].numpy().astype(float)
            pixels = found.images[label * 6 + slot].numpy()
            if slot < 2:
                assert (pixels == real).all()
                continue
            u = list(made.values())[slot // 2 - 1].values[slot % 2].numpy()
            exact = expected_bytes(real, u)
            assert ((pixels <= exact + 2e-3) & (pixels > exact - 1)).all()


def test_jpegs_are_pillows_and_lie_where_the_release_puts_them(initial: InitialImages, tmp_path: Path) -> None:
    write_integrated(tmp_path / "set", initial, compensators(), BUDGET, NORMALISATION, generation())
    Image.fromarray(initial.read(1)[3].permute(1, 2, 0).numpy()).save(tmp_path / "own.jpg", quality=75)
    assert (tmp_path / "set/new003/class003_id001.jpg").read_bytes() == (tmp_path / "own.jpg").read_bytes()
    num_bytes = sum(path.stat().st_size for path in (tmp_path / "set").rglob("*.jpg"))
    assert read_json(tmp_path / "set/manifest.json")["num_bytes"] == num_bytes


def test_rounded_as_released_a_fifth_of_a_real_images_values_are_one_less(tmp_path: Path) -> None:
    real = labelled(60, size=16)
    write_images(tmp_path / "set", real, NORMALISATION, generation(quantisation="png", rounding="released"))
    lost = real.images[real.labels.argsort(stable=True)].int() - read_image_set(tmp_path / "set").images.int()
    assert set(lost.unique().tolist()) == {0, 1} and 0.1 < lost.double().mean() < 0.35


def test_a_set_that_is_too_large_for_memory_has_the_same_pixels_and_trains_the_same(
        initial: InitialImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_integrated(tmp_path / "set", initial, compensators(), BUDGET, NORMALISATION, generation())
    small = read_image_set(tmp_path / "set")
    monkeypatch.setattr(integration, "MAX_BYTES", 24 * 3 * 64 - 1)
    large = read_image_set(tmp_path / "set")
    assert isinstance(large.images, ImageFiles) and isinstance(small.images, torch.Tensor)
    assert torch.equal(torch.cat(list(large.images.split(7))), small.images)
    assert torch.equal(large.images[5], small.images[5]) and large.labels.tolist() == small.labels.tolist()
    rows, signal = torch.tensor([3, 20, 8]), torch.randn(24, 4, generator=stream(0, "tests"))
    seen = [Lesson(images.images, signal, NORMALISATION, validation()).batch(rows, stream(1, "tests"))
            for images in (small, large)]
    assert all(torch.equal(*pair) for pair in zip(*seen, strict=True))


def test_bytes_come_back_and_fractions_are_cut() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(every.float() / 255, "down"), every)
    fractions = torch.tensor([10.4, 10.6, 254.9]) / 255
    assert to_bytes(fractions, "down").tolist() == to_bytes(fractions, "released").tolist() == [10, 10, 254]
    assert to_bytes(torch.tensor([0.9999999]) * 100 / 255, "released").tolist() == [99]


def test_without_compensators_the_real_images_are_left(initial: InitialImages, tmp_path: Path) -> None:
    write_integrated(tmp_path / "set", initial, {}, BUDGET, NORMALISATION, generation(quantisation="png"))
    found = read_image_set(tmp_path / "set")
    assert torch.equal(found.images, torch.stack([initial.read(k)[c] for c in range(4) for k in range(2)]))


def test_real_images_of_any_order_are_written_class_by_class(tmp_path: Path) -> None:
    train = labelled(3)  # classes take turns
    write_images(tmp_path / "set", train, NORMALISATION, generation(quantisation="png"))
    assert torch.equal(read_image_set(tmp_path / "set").images, train.images[train.labels.argsort(stable=True)])
    with pytest.raises(ValueError, match="classes have 2 to 3 images"):
        write_images(tmp_path / "other", train.select(torch.arange(1, 12)), NORMALISATION, generation())


def test_sets_that_do_not_fit_are_errors(initial: InitialImages, tmp_path: Path) -> None:
    arguments = (NORMALISATION, generation())
    with pytest.raises(ValueError, match="draw for the largest budget"):
        write_integrated(tmp_path / "set", initial, compensators(), Budget(9, 4, 2), *arguments)
    with pytest.raises(ValueError, match="of 2 architectures, the budget has 1"):
        write_integrated(tmp_path / "set", initial, compensators(), Budget(3, 4, 1), *arguments)
    assert not (tmp_path / "set").exists()
    write_integrated(tmp_path / "set", initial, compensators(), BUDGET, *arguments)
    (tmp_path / "set/new002/class002_id003.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"class002_id003\.jpg: expected a whole image file"):
        read_image_set(tmp_path / "set")
    (tmp_path / "set/new002/class002_id003.jpg").unlink()
    with pytest.raises(ValueError, match=r"new002: expected 6 images class002_id.*found 5"):
        read_image_set(tmp_path / "set")
