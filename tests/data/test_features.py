"""Feature caches: written, read back, and refused when their parts do not belong together."""

import dataclasses
from pathlib import Path

import pytest
import torch

from repblend.data.features import Features, SplitFeatures, feature_files, read_features, write_features
from repblend.store import write_tensors


def some_features() -> Features:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Features(draw(2, 3, 5), draw(4, 6), torch.tensor([0, 1, 1, 2]),
                    SplitFeatures(draw(2, 5), draw(3, 6), torch.tensor([0, 0, 1])),
                    SplitFeatures(draw(1, 5), draw(1, 6), torch.tensor([0])))


def tensors(features: Features) -> list[torch.Tensor]:
    return [features.train_images, features.train_texts, features.train_image_index,
            *vars(features.val).values(), *vars(features.test).values()]


def test_what_is_written_is_read_back_and_has_the_same_bytes_again(tmp_path: Path) -> None:
    features = some_features()
    write_features(tmp_path / "a", features)
    write_features(tmp_path / "b", features)
    for read, written in zip(tensors(read_features(tmp_path / "a")), tensors(features), strict=True):
        assert torch.equal(read, written) and read.dtype == written.dtype
    for a, b in zip(feature_files(tmp_path / "a"), feature_files(tmp_path / "b"), strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_nothing_is_written_when_a_feature_is_not_finite(tmp_path: Path) -> None:
    features = some_features()
    features.val.texts[1, 2] = float("nan")
    with pytest.raises(ValueError, match=r"val\.safetensors: tensor 'texts' holds NaN"):
        write_features(tmp_path / "features", features)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_file_is_named(tmp_path: Path, number: int, keep: int) -> None:
    write_features(tmp_path / "features", some_features())
    path = feature_files(tmp_path / "features")[number]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{path.name}: expected a whole safetensors file"):
        read_features(tmp_path / "features")


@pytest.mark.parametrize("number", range(4))
def test_a_missing_file_is_named(tmp_path: Path, number: int) -> None:
    write_features(tmp_path / "features", some_features())
    path = feature_files(tmp_path / "features")[number]
    path.unlink()
    with pytest.raises(ValueError, match=rf"{path.name}: no such file"):
        read_features(tmp_path / "features")


@pytest.mark.parametrize(("changes", "file", "expected"), [
    ({"train_images": torch.zeros(3, 5)}, "train_images", r"expected features of shape \(views"),
    ({"train_images": torch.zeros(2, 4, 5)}, "train_texts", "image index in 0..3"),
    ({"train_images": torch.zeros(2, 3, 9)}, "val", r"expected features of shape \(N, 9\).* found \(2, 5\)"),
    ({"train_images": torch.zeros(2, 3, 5, dtype=torch.float64)}, "train_images", "is torch.float64"),
    ({"train_texts": torch.zeros(4, 7)}, "val", r"expected features of shape \(N, 7\).* found \(3, 6\)"),
    ({"train_image_index": torch.tensor([0, 1, 1])}, "train_texts", "for each of 4 captions"),
    ({"train_image_index": torch.tensor([0, 1, 1, 3])}, "train_texts", "image index in 0..2"),
    ({"train_image_index": torch.tensor([0, 1, 1, -1])}, "train_texts", "image index in 0..2"),
    ({"train_image_index": torch.tensor([0, 1, 1, 1])}, "train_texts", "each image at least once"),
    ({"train_image_index": torch.tensor([0, 1, 1, 2], dtype=torch.int32)}, "train_texts", "is torch.int32"),
])
def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path, changes: dict, file: str, expected: str) -> None:
    write_features(tmp_path / "features", dataclasses.replace(some_features(), **changes))
    with pytest.raises(ValueError, match=rf"{file}\.safetensors: .*{expected}"):
        read_features(tmp_path / "features")


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    write_features(tmp_path / "features", some_features())
    write_tensors(tmp_path / "features" / "val.safetensors", {"images": torch.zeros(2, 5)})
    with pytest.raises(ValueError, match=r"val\.safetensors: tensor 'texts' is missing"):
        read_features(tmp_path / "features")
