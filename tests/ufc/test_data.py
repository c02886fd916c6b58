"""Images, splits, normalisation, initial images and baselines."""

from pathlib import Path

import pytest
import torch

from repblend.ufc.data import (
    NORMALISATIONS,
    InitialImages,
    LabelledImages,
    draw_positions,
    hold_out,
    write_initial_images,
)
from repblend.ufc.params import UfcData
from repblend.ufc.readers import read_digits, read_splits
from tests.ufc.small import labelled


def keys(images: LabelledImages) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.images}


def test_digits_are_all_there_and_their_constants_are_measured() -> None:
    digits = read_digits(8)
    assert len(digits) == 1797 and digits.images.min() == 0 and digits.images.max() == 255
    pixels = digits.images.double() / 255
    constants = NORMALISATIONS["digits"]
    assert (round(pixels.mean().item(), 4), round(pixels.std().item(), 4)) == (constants.mean[0], constants.std[0])
    with pytest.raises(ValueError, match="8 pixels, found 28"):
        read_digits(28)


def test_splits_are_disjoint_balanced_and_drawn_from_the_seed(tmp_path: Path) -> None:
    data = UfcData(name="digits", image_size=8, num_val=200, num_test=300)
    splits = read_splits(data, tmp_path, 3)
    assert [len(split) for split in splits] == [1297, 200, 300]
    assert torch.bincount(splits.val.labels).tolist() == [20] * 10
    assert torch.bincount(splits.test.labels).tolist() == [30] * 10
    assert len(keys(splits.train) | keys(splits.val) | keys(splits.test)) == len(keys(read_digits(8)))
    assert torch.equal(splits.test.images, read_splits(data, tmp_path, 3).test.images)
    assert not torch.equal(splits.test.images, read_splits(data, tmp_path, 4).test.images)


def test_what_cannot_be_held_out_is_an_error() -> None:
    with pytest.raises(ValueError, match="take a multiple"):
        hold_out(labelled(3), 5, 0, "val")
    with pytest.raises(ValueError, match="class 0 has 3 images, so 3"):
        hold_out(labelled(3), 12, 0, "val")


def test_labels_out_of_range_are_errors() -> None:
    good = labelled(2)
    with pytest.raises(ValueError, match="0 to 2, found 0 to 3"):
        LabelledImages(good.images, good.labels, 3)


def test_normalisation_is_the_formula_and_clipping_is_to_what_pixels_can_be() -> None:
    constants, images = NORMALISATIONS["cifar100"], labelled(1).images
    inputs = constants.normalise(images)
    for channel in range(3):
        expected = (images[:, channel].double() / 255 - constants.mean[channel]) / constants.std[channel]
        torch.testing.assert_close(inputs[:, channel].double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal((constants.denormalise(inputs) * 255).round().to(torch.uint8), images)
    far = constants.clip(inputs + 100 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0)))
    pixels = constants.denormalise(far)
    assert -1e-6 < pixels.min() < 1e-6 and 1 - 1e-6 < pixels.max() < 1 + 1e-6
    assert torch.equal(constants.clip(inputs), inputs)


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_the_ends_of_clipping_are_rounded_once_as_released(name: str) -> None:
    constants = NORMALISATIONS[name]
    far = torch.tensor([-1e3, 1e3]).expand(3, 1, 2)
    found = constants.clip(far)
    for channel, (mean, std) in enumerate(zip(constants.mean, constants.std, strict=True)):
        assert torch.equal(found[channel, 0], far[channel, 0].clamp(-mean / std, (1 - mean) / std))


def test_initial_images_are_of_their_class_without_repetition_and_read_in_parts(tmp_path: Path) -> None:
    train = labelled(6)
    initial = write_initial_images(tmp_path / "initial", train, range(5), seed=2)
    assert (initial.num_per_class, initial.num_classes, initial.image_size) == (5, 4, 8)
    for label in range(4):
        own = {image.numpy().tobytes() for image in train.images[train.labels == label]}
        drawn = [initial.read(image)[label].numpy().tobytes() for image in range(5)]
        assert len(set(drawn)) == 5 and set(drawn) <= own
    assert torch.equal(InitialImages(tmp_path / "initial").read(3, slice(1, 3)), initial.read(3)[1:3])


def test_a_smaller_draw_is_the_beginning_of_a_larger_one() -> None:
    labels = labelled(6).labels
    assert torch.equal(draw_positions(labels, 4, 2, 9), draw_positions(labels, 4, 5, 9)[:, :2])
    with pytest.raises(ValueError, match="class 0 has 6 training images, the budget asks for 7"):
        draw_positions(labels, 4, 7, 9)


def test_random_images_have_the_budget_and_begin_with_the_initial_ones(tmp_path: Path) -> None:
    train = labelled(6)
    drawn = train.select(draw_positions(train.labels, 4, 4, 2).flatten())
    assert drawn.labels.tolist() == [label for label in range(4) for _ in range(4)]
    initial = write_initial_images(tmp_path / "initial", train, range(3), seed=2)
    assert torch.equal(drawn.images[4:7], torch.stack([initial.read(image)[1] for image in range(3)]))
