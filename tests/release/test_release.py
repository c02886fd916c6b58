"""Release of a set: what others load is what students are trained on, and the numbers come out the same."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from repblend.data.features import read_features
from repblend.encoders.registry import load_image_encoder
from repblend.matching.similarity import LowRankSimilarity
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params, read_params
from repblend.release.__main__ import main, release
from repblend.release.training import evaluate_release
from repblend.stages import encode, evaluate, prepare
from repblend.stages.context import Cell, Paths, StageContext
from repblend.store import read_json, write_json
from tests.tiny import tiny_content

CELL = Cell("repblend", 50)
NUM_PAIRS = 6


def write_params(folder: Path) -> Params:
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(tiny_content(), file)
    return read_params(folder / "params.yaml")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, features, and an evaluated set with a similarity that is no identity and texts that are no caption's."""
    folder = tmp_path_factory.mktemp("workspace")
    paths, params = Paths(folder), write_params(folder)
    for stage in (prepare, encode):
        stage.run(StageContext(stage.__name__.rpartition(".")[2], None, params, paths))
    draws, features = torch.Generator().manual_seed(0), read_features(paths.features)
    similarity = LowRankSimilarity(torch.ones(NUM_PAIRS), torch.randn(NUM_PAIRS, 2, generator=draws) / 3,
                                   torch.randn(NUM_PAIRS, 2, generator=draws) / 3, 1.0)
    texts = features.train_texts[:NUM_PAIRS] + 0.02 * torch.randn(NUM_PAIRS, 384, generator=draws)
    images = torch.randn(NUM_PAIRS, 3, 32, 32, generator=draws)
    SyntheticSet(images, texts, similarity, 0.05, 0.04, {"loss": "infonce", "cell": CELL.to_json()}).write(
        paths.set(CELL))
    write_json(paths.metrics("distill", CELL), {"provenance": {"command": "python -m repblend.stages distill x"}})
    evaluate.run(StageContext("evaluate", CELL, params, paths))
    return folder


@pytest.fixture(scope="module")
def released(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released") / "set"
    release(CELL, Paths(workspace)).write(folder)
    return folder


def test_the_hubs_library_loads_the_pairs_with_every_float_as_it_was(workspace: Path, released: Path,
                                                                     tmp_path: Path) -> None:
    loaded = datasets.load_dataset(str(released), split="train", cache_dir=str(tmp_path))
    stored = SyntheticSet.read(Paths(workspace).set(CELL))
    assert loaded.num_rows == NUM_PAIRS
    assert torch.equal(torch.tensor(loaded["text_embedding"][:]), stored.texts)
    assert torch.equal(torch.tensor(loaded["similarity"][:]), stored.similarity.matrix())
    assert all(isinstance(image, Image.Image) and image.size == (32, 32) for image in loaded["image"])


def test_images_are_shown_within_half_a_level_where_a_screen_can_show_them(workspace: Path, released: Path) -> None:
    stored, encoder = SyntheticSet.read(Paths(workspace).set(CELL)), load_image_encoder("efficientnet_lite0", 32)
    exact = (stored.images[2].permute(1, 2, 0) * encoder.std + encoder.mean).numpy() * 255
    shown = np.asarray(Image.open(released / "images" / "00002.png")).astype(float)
    assert np.abs(shown - exact.clip(0, 255)).max() < 0.5 + 1e-3


def test_an_evaluation_of_the_release_gives_the_recorded_numbers(workspace: Path, released: Path) -> None:
    recorded = read_json(Paths(workspace).metrics("evaluate", CELL))
    again = evaluate_release(released, workspace).to_json()
    assert again == {key: recorded[key] for key in again}
    assert read_json(released / "release.json")["evaluation"]["protocols"] == again["protocols"]


def test_a_release_is_evaluated_with_the_workspaces_threads_and_leaves_the_readers_own(
        workspace: Path, released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr("repblend.release.training.evaluate_cell", lambda *_: seen.append(
        (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())))
    torch.set_num_threads(3)
    try:
        evaluate_release(released, workspace)
        assert seen == [(1, True)] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_nearest_captions_are_those_of_the_pair_that_a_text_was_made_from(workspace: Path, released: Path) -> None:
    rows = [json.loads(line) for line in (released / "images" / "metadata.jsonl").read_text().splitlines()]
    train = read_json(Paths(workspace).data / "openmoji_train.json")
    captions = [row["caption"] for row in train][:NUM_PAIRS]
    assert [row["nearest_captions"][0] for row in rows] == captions


def test_the_card_names_licence_source_and_what_was_measured(workspace: Path, released: Path) -> None:
    text = (released / "README.md").read_text(encoding="utf-8")
    mean = read_json(Paths(workspace).metrics("evaluate", CELL))["protocols"]["held-out"]["mean"]["mean_recall"]
    assert text.startswith("---\nlicense: cc-by-sa-4.0\n") and "All emojis designed by OpenMoji" in text
    assert f"| {mean:.1f} ± " in text and "$" not in text


def test_a_set_that_was_not_evaluated_says_so(workspace: Path, tmp_path: Path) -> None:
    metrics = Paths(workspace).metrics("evaluate", CELL)
    kept = metrics.read_bytes()
    metrics.unlink()
    try:
        release(CELL, Paths(workspace)).write(tmp_path / "set")
    finally:
        metrics.write_bytes(kept)
    assert "Not evaluated" in (tmp_path / "set" / "README.md").read_text(encoding="utf-8")


def test_a_folder_that_is_something_else_is_left_alone(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is no released set"):
        release(CELL, Paths(workspace)).write(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_set_that_was_not_made_is_named(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(workspace)
    assert main(["repblend-7", str(tmp_path / "set")]) == 1
    assert "repblend-7.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
