"""Feature caches: written whole or part by part, read back, and refused when their parts do not belong together."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from repblend.data.features import (
    Features,
    Part,
    SplitFeatures,
    feature_files,
    fill,
    read_features,
)
from repblend.tensors import TensorFile, TensorSpec, write_tensors


def write_features(folder: Path, features: Features) -> None:
    """Write a whole cache at once, which stage `encode` fills part by part."""
    images, texts, val, test = feature_files(folder)
    write_tensors(images, {"features": features.train_images})
    write_tensors(texts, {"features": features.train_texts, "image_index": features.train_image_index})
    write_tensors(val, vars(features.val))
    write_tensors(test, vars(features.test))


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


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    features = some_features()
    write_features(tmp_path / "features", features)
    for read, written in zip(tensors(read_features(tmp_path / "features")), tensors(features), strict=True):
        assert torch.equal(read, written) and read.dtype == written.dtype


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


class Stop(Exception):
    pass


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("stop_at", range(7))
def test_a_stopped_run_goes_on_after_its_last_entry(tmp_path: Path, stop_at: int, every: int) -> None:
    """Parts of one row; the first run stops before part `stop_at`."""
    features = some_features().train_images
    write_tensors(tmp_path / "whole", {"features": features})
    specs, rows = {"features": TensorSpec("float32", tuple(features.shape))}, features.flatten(0, 1)

    def parts_from(done: int, stop: int | None = None) -> Iterator[Part]:
        for row in range(done, len(rows)):
            if row == stop:
                raise Stop
            made.append(row)
            yield [(row, rows[row])]

    made: list[int] = []
    with TensorFile(tmp_path / "parts", specs) as file:
        try:
            fill(file, "features", tmp_path / "journal", lambda done: parts_from(done, stop_at), every)
        except Stop:
            made.clear()
            fill(file, "features", tmp_path / "journal", parts_from, every)
            assert made == list(range(stop_at // every * every, len(rows)))
        made.clear()
        fill(file, "features", tmp_path / "journal", parts_from, every)
    assert made == []
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
