"""The stages of the unimodal pipeline, run one after the other on a workspace that takes seconds."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from repblend.stages.context import Cell
from repblend.stages.harness import compute_deterministically
from repblend.store import read_json, read_tensors, sha256, write_json
from repblend.ufc.integration import read_image_set
from repblend.ufc_report.tables import results_text
from repblend.ufc_stages.context import StudentCell, UfcContext
from repblend.ufc_stages.inputs import normalisation_of, read_pinned_data, read_teachers
from repblend.ufc_stages.regions import NUM_CLASSES, disagreement
from repblend.ufc_stages.validate import PREDICTED_CLASSES, _chosen, _hard_logit
from tests.ufc_report.synthetic import DIGITS, params_text

TEACHERS = ("convnet-small", "resnet-small")
BUDGET = 3
"""With two teachers and ten classes: two real images per class, six to train on, 24 of 30 counted."""
SETS = ("ufc", "real", "random")
STUDENT_CELLS = ("ufc+static+convnet-small-3", "ufc+dynamic+convnet-small-3", "random+static+convnet-small-3",
                 "random+dynamic+convnet-small-3", "real+static+convnet-small-3", "random+hard+convnet-small-3")
PIPELINE = [("prepare", None), ("initial", None), *(("teacher", name) for name in TEACHERS),
            *(("generate", name) for name in TEACHERS), ("integrate", "ufc-3"), ("select", "real-3"),
            ("select", "random-3"), *(("label", f"{name}-3") for name in SETS),
            *(("validate", cell) for cell in STUDENT_CELLS), ("regions", None)]


def run(root: Path, stage: str, cell: str | None) -> UfcContext:
    context = UfcContext.of(root, stage, cell)
    importlib.import_module(f"repblend.ufc_stages.{stage}").run(context)
    return context


def write_params(root: Path) -> None:
    root.mkdir()
    text = params_text(DIGITS).replace("[alpha, beta]", f"[{', '.join(TEACHERS)}]").replace("[3, 10]", f"[{BUDGET}]")
    (root / "params.yaml").write_text(text.replace("[alpha, resnet18]", "[convnet-small]"))


def run_all(root: Path) -> Path:
    write_params(root)
    for stage, cell in PIPELINE:
        run(root, stage, cell)
    return root


@pytest.fixture(scope="module", autouse=True)
def deterministic() -> Iterator[None]:
    """As stages compute; afterwards as it was."""
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    compute_deterministically(1)
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.set_num_threads(before[1])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which everything ran; tests do not change it."""
    return run_all(tmp_path_factory.mktemp("ufc") / "workspace")


def test_a_second_run_in_another_folder_gives_the_same_bytes(workspace: Path, tmp_path: Path) -> None:
    again = run_all(tmp_path / "elsewhere")
    hashes = [{path.relative_to(root).as_posix(): sha256(path) for path in root.rglob("*") if path.is_file()}
              for root in (workspace, again)]
    assert hashes[0] == hashes[1] and len(hashes[0]) > 100


def test_nothing_is_left_over(workspace: Path) -> None:
    assert not [path for path in (workspace / "checkpoints").rglob("*") if path.is_file()]


def test_sets_hold_what_their_budget_allows(workspace: Path) -> None:
    counts = {name: read_json(workspace / f"metrics/sets/{name}-3.json") for name in SETS}
    assert [counts[name]["num_images"] for name in SETS] == [60, 20, 30]
    assert [counts[name]["num_counted"] for name in SETS] == [24, 20, 30]
    assert {counts[name]["num_allowed"] for name in SETS} == {30}
    bytes_ = counts["ufc"]["stored_bytes"]
    assert bytes_["real_images"] == 20 * 192 and bytes_["compensators"] == 4 * 192 * 4
    assert bytes_["static_labels"] == 60 * 10 * 4
    assert bytes_["integrated"] == sum(path.stat().st_size for path in (workspace / "sets/ufc-3").rglob("*.jpg"))


def test_the_three_sets_share_their_real_images(workspace: Path) -> None:
    ufc, real, random = (read_image_set(workspace / f"sets/{name}-3") for name in SETS)
    by_class = ufc.pixels.view(10, 6, 3, 8, 8)
    assert torch.equal(by_class[:, :2].flatten(0, 1), real.pixels)
    assert torch.equal(random.pixels.view(10, 3, 3, 8, 8)[:, :2].flatten(0, 1), real.pixels)
    assert not torch.equal(by_class[:, 2:4], by_class[:, :2])


def test_static_labels_are_the_mean_of_the_teachers_outputs(workspace: Path) -> None:
    context = UfcContext.of(workspace, "label", "ufc-3")
    images = read_image_set(workspace / "sets/ufc-3")
    inputs = normalisation_of(context).normalise(images.pixels)
    with torch.no_grad():
        first, second = (teacher(inputs) for teacher in read_teachers(context).values())
    stored, _ = read_tensors(workspace / "labels/ufc-3.safetensors")
    torch.testing.assert_close(stored["logits"], (first + second) / 2)


def test_students_of_a_budget_see_as_many_images(workspace: Path) -> None:
    found = {cell: read_json(workspace / f"metrics/validate/{cell}.json") for cell in STUDENT_CELLS}
    seen = {cell: content["num_images"] * content["epochs"] for cell, content in found.items()}
    assert {count for cell, count in seen.items() if "dynamic" not in cell} == {60 * 4}
    assert {count for cell, count in seen.items() if "dynamic" in cell} == {60 * 2}
    assert found["ufc+dynamic+convnet-small-3"]["cost"] == {"label_bytes": 0, "teacher_passes": 2 * 60 * 2}
    assert found["ufc+static+convnet-small-3"]["cost"] == {"label_bytes": 2400, "teacher_passes": 2 * 60}
    assert found["random+hard+convnet-small-3"]["cost"] == {"label_bytes": 0, "teacher_passes": 0}


@pytest.mark.parametrize("num_classes", [10, 100, 1000])
def test_own_classes_as_labels_stay_so_in_mixtures_whatever_the_number_of_classes(num_classes: int) -> None:
    logits = _hard_logit(num_classes) * torch.nn.functional.one_hot(torch.tensor([0, 1]), num_classes)
    assert float(logits[0].softmax(0)[0]) > 0.99
    assert 0.96 < float(logits.mean(0).softmax(0)[:2].sum()) < 0.98
    assert _hard_logit(10) == 10.0


def test_decision_regions_have_points_of_every_class_that_they_show() -> None:
    assert PREDICTED_CLASSES == NUM_CLASSES
    assert torch.equal(_chosen(torch.arange(10).repeat(40)), torch.arange(400))
    imagenet = torch.arange(1000).repeat_interleave(50)  # class by class, as its folders are read
    assert torch.bincount(imagenet[_chosen(imagenet)]).tolist() == [50] * NUM_CLASSES
    cifar10 = torch.arange(10).repeat(1000)
    assert torch.bincount(cifar10[_chosen(cifar10)]).min() > 100 and len(_chosen(cifar10)) == 1000


def test_predictions_are_those_of_the_first_student(workspace: Path) -> None:
    cell = "ufc+static+convnet-small-3"
    kept, _ = read_tensors(workspace / f"predictions/{cell}.safetensors")
    right = float((kept["logits"].argmax(1) == kept["labels"]).double().mean()) * 100
    assert read_json(workspace / f"metrics/validate/{cell}.json")["seeds"][0]["last"] == pytest.approx(right)


def test_the_report_finds_every_cell(workspace: Path) -> None:
    assert "not run" not in results_text(workspace)


def test_other_images_than_those_prepared_are_refused(tmp_path: Path) -> None:
    write_params(tmp_path / "workspace")
    context = run(tmp_path / "workspace", "prepare", None)
    path = context.paths.metrics("prepare")
    write_json(path, read_json(path) | {"sha256": {"train": "0" * 64, "val": "0" * 64, "test": "0" * 64}})
    with pytest.raises(ValueError, match=r"prepare\.json: the images of train have .* run stage prepare again"):
        read_pinned_data(context)


@pytest.mark.parametrize(("stage", "cell", "words"), [
    ("teacher", "resnet18", "teachers.architectures has no 'resnet18'; expected one of convnet-small, resnet-small"),
    ("integrate", "random-3", "expected ufc-3"),
    ("select", "ufc-3", "expected one of random, real"),
    ("label", "ufc-99", "no such"),
    ("validate", "ufc+static+nonsense-3", "network 'nonsense'"),
])
def test_what_cannot_be_run_is_said(workspace: Path, stage: str, cell: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run(workspace, stage, cell)


def test_disagreement_counts_neighbours_of_another_class() -> None:
    plane = torch.tensor([[0.0, float(place)] for place in range(11)] + [[100.0, float(place)] for place in range(11)])
    sides = torch.arange(22) // 11
    assert disagreement(plane, sides) == 0
    odd = sides.clone()
    odd[5] = 3  # every other point of its side has it among its ten nearest, and it has ten of another class
    assert disagreement(plane, odd) == pytest.approx(100 * (10 + 10) / (22 * 10))


def test_cells_name_their_files() -> None:
    cell = StudentCell.parse("ufc+static+convnet-small-3")
    assert cell.set == Cell("ufc", 3) and cell.student == "convnet-small"
