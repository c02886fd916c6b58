"""Stage `transfer` on a tiny workspace: against stage `evaluate`, and against students trained and scored by hand."""

import statistics
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repblend.data.features import Features, read_features
from repblend.data.icons import read_icons
from repblend.data.images import normalise
from repblend.data.karpathy import read_annotations
from repblend.encoders.registry import load_image_encoder, load_text_encoder
from repblend.evaluation.protocol import initial_heads, student_batches
from repblend.evaluation.recall import chance_recalls
from repblend.evaluation.student import Recipe, published_decay_start, train_students
from repblend.evaluation.towers import HeadPair
from repblend.evaluation.zero_shot import word_task
from repblend.grid import Cell
from repblend.matching.similarity import LowRankSimilarity
from repblend.matching.student import PerModality, TwoTower
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params
from repblend.runtime.context import Paths
from repblend.stages import encode, evaluate, prepare, transfer
from repblend.stages.pipeline import Context
from repblend.store import read_json
from tests.tiny import tiny_content

CELL = Cell("repblend", 50)
ENCODERS = ["efficientnet_lite0", "efficientnet_lite2"]
NUM_ICONS = 15


def tiny_params(**changes: str) -> Params:
    content = tiny_content()
    content["transfer"] = {"architectures": ENCODERS, "num_icons": NUM_ICONS} | changes
    return Params.model_validate(content)


def context(stage: str, folder: Path) -> Context:
    cell = CELL if stage in ("evaluate", "transfer") else None
    return Context(stage, cell, tiny_params(), Paths(folder))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and features, and a set whose similarity is no identity and whose texts are not any caption's."""
    folder = tmp_path_factory.mktemp("transfer")
    prepare.run(context("prepare", folder))
    encode.run(context("encode", folder))
    draws, features = torch.Generator().manual_seed(0), read_features(Paths(folder).features)
    similarity = LowRankSimilarity(torch.ones(6), torch.randn(6, 2, generator=draws) / 3,
                                   torch.randn(6, 2, generator=draws) / 3, 1.0)
    texts = features.train_texts[:6] + 0.02 * torch.randn(6, 384, generator=draws)
    images = torch.randn(6, 3, 32, 32, generator=draws)
    SyntheticSet(images, texts, similarity, 0.05, 0.04, {"loss": "infonce"}).write(Paths(folder).set(CELL))
    transfer.run(context("transfer", folder))
    return folder


@pytest.fixture(scope="module")
def metrics(workspace: Path) -> dict:
    return read_json(Paths(workspace).record("transfer", CELL))


def test_on_the_sets_own_encoder_it_says_what_stage_evaluate_says(workspace: Path, metrics: dict) -> None:
    evaluate.run(context("evaluate", workspace))
    expected = read_json(Paths(workspace).record("evaluate", CELL))
    own, other = (metrics["architectures"][name] for name in ENCODERS)
    assert own == {key: expected[key] for key in own}
    assert set(other) == set(own) and other["curves"] != own["curves"]


def test_the_epoch_of_the_zero_shot_tasks_is_the_one_that_validation_chose(metrics: dict) -> None:
    chosen = [seed["epoch"] for seed in metrics["architectures"][ENCODERS[0]]["protocols"]["held-out"]["seeds"]]
    for task in ("icons", "ten-words"):
        found = metrics["zero_shot"][task]["protocols"]["held-out"]
        assert [seed["epoch"] for seed in found["seeds"]] == chosen and found["selected_on"] == "val"


def heads_at(folder: Path, features: Features, epochs: list[int]) -> tuple[list[PerModality], TwoTower]:
    """Each seed's heads after its epoch, trained again."""
    synthetic, params = SyntheticSet.read(Paths(folder).set(CELL)), tiny_params()
    images = load_image_encoder("efficientnet_lite0", 32).encode(synthetic.images)
    heads = HeadPair.of_widths(*features.widths, 16)
    student = heads.student
    kept: dict[int, PerModality] = {}
    train_students(images, synthetic.texts, synthetic.similarity.matrix(),
                   initial_heads(0, 3, heads), student_batches(0, 3, 6, 6, 4), student,
                   Recipe(0.05, 0.04, params.evaluate.momentum, params.evaluate.weight_decay, "infonce",
                          params.evaluate.temperature, published_decay_start(6)),
                   lambda epoch, heads, _: kept.update({epoch: PerModality(*(value.clone() for value in heads()))}))
    return [PerModality(*(value[seed] for value in kept[epoch])) for seed, epoch in enumerate(epochs)], student


def cosines(images: Tensor, texts: Tensor, heads: PerModality, student: TwoTower) -> Tensor:
    return torch.nn.functional.cosine_similarity(student.image(images, heads.img)[:, None],
                                                 student.text(texts, heads.txt)[None], dim=2)


def test_zero_shot_scores_are_those_of_students_trained_and_scored_by_hand(workspace: Path, metrics: dict) -> None:
    features, texts = read_features(Paths(workspace).features), load_text_encoder("all-MiniLM-L6-v2")
    icons, words = (metrics["zero_shot"][task] for task in ("icons", "ten-words"))
    epochs = [seed["epoch"] for seed in words["protocols"]["held-out"]["seeds"]]
    trained, student = heads_at(workspace, features, epochs)
    encoder, (pixels, names) = load_image_encoder("efficientnet_lite0", 32), read_icons(NUM_ICONS, 32, 60)
    icon_features = encoder.encode(normalise(pixels, encoder.mean, encoder.std))
    captions = [image.captions for image in read_annotations(workspace / "data/prepared", "openmoji", 60).test]
    task = word_task(captions)
    for seed, heads in enumerate(trained):
        scores = cosines(icon_features, texts.encode(names), heads, student)
        right = sum(int(row.argmax()) == number for number, row in enumerate(scores))
        assert icons["protocols"]["held-out"]["seeds"][seed]["tr_at_1"] == pytest.approx(100 * right / NUM_ICONS)
        right = sum(int(column.argmax()) == number for number, column in enumerate(scores.T))
        assert icons["protocols"]["held-out"]["seeds"][seed]["ir_at_1"] == pytest.approx(100 * right / NUM_ICONS)
        scores = cosines(features.test.images[task.images], texts.encode(words["words"]), heads, student)
        right = sum(words["words"][row.argmax()] in " ".join(captions[image]).split()
                    for row, image in zip(scores, task.images.tolist(), strict=True))
        found = words["protocols"]["held-out"]["seeds"][seed]["accuracy"]
        assert found == pytest.approx(100 * right / words["num_images"])


def test_the_file_says_chance_units_and_where_it_comes_from(metrics: dict) -> None:
    icons, words = metrics["zero_shot"]["icons"], metrics["zero_shot"]["ten-words"]
    assert set(metrics) == {"cell", "unit", "architectures", "zero_shot", "provenance"}
    assert (metrics["cell"], metrics["unit"]) == ({"method": "repblend", "budget": 50}, "percent")
    assert (icons["metric"], words["metric"]) == ("retrieval", "top-1 accuracy")
    assert icons["chance"] == chance_recalls(torch.arange(NUM_ICONS)) and icons["num_images"] == NUM_ICONS
    assert words["chance"] == 10.0 and 10.0 <= words["majority"] <= 100.0 and len(words["words"]) == 10
    held_out = words["protocols"]["held-out"]
    accuracies = [seed["accuracy"] for seed in held_out["seeds"]]
    assert held_out["mean"] == {"accuracy": statistics.fmean(accuracies)}
    assert held_out["std"] == {"accuracy": statistics.stdev(accuracies)}
    assert set(metrics["provenance"]["parameters"]) == set(Context.pipeline.stages["transfer"].sections)
    assert set(metrics["provenance"]["inputs"]) == {
        "data/prepared/manifest.json", "sets/repblend-50.safetensors",
        *(f"features/{name}.safetensors" for name in ("train_images", "train_texts", "val", "test"))}


def test_a_second_run_writes_the_same_bytes(workspace: Path) -> None:
    path = Paths(workspace).record("transfer", CELL)
    before = path.read_bytes()
    transfer.run(context("transfer", workspace))
    assert path.read_bytes() == before


def test_heads_on_another_encoder_are_as_wide_as_asked_for() -> None:
    for changes, width in (({}, 16), ({"head_width": "same"}, 16), ({"head_width": "image-features"}, 960)):
        found = transfer.heads_on(960, 768, tiny_params(**changes))
        assert [(side.d_in, side.d) for side in (found.img, found.txt)] == [
            (960, width), (768, width)]
