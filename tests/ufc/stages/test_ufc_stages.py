"""The stages of the unimodal pipeline, run one after the other on a workspace that takes seconds."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repblend.grid import Cell
from repblend.params.reading import read_yaml
from repblend.runtime.harness import compute_deterministically
from repblend.store import read_json, sha256, write_json
from repblend.tensors import read_tensors
from repblend.ufc.data import NORMALISATIONS, InitialImages
from repblend.ufc.integration import read_image_set
from repblend.ufc.records import MadeSet, TaughtNetwork, Validated
from repblend.ufc.report.tables import results_text
from repblend.ufc.stages.pipeline import StudentCell, UfcContext, UfcPaths
from repblend.ufc.stages.regions import NUM_CLASSES, disagreement
from repblend.ufc.stages.setup import normalisation_of, read_pinned_data, read_teachers
from repblend.ufc.stages.students import PREDICTED_CLASSES, _chosen
from tests.ufc.report.synthetic import DIGITS, ROOT, params_text

TEACHERS = ("convnet-small", "resnet-small")
BUDGET = 3
"""With two teachers and ten classes: two real images per class, six to train on, 24 of 30 counted."""
SETS = ("ufc", "real", "random")
STUDENT_CELLS = ("ufc+static+convnet-small-3", "ufc+dynamic+convnet-small-3", "random+static+convnet-small-3",
                 "random+dynamic+convnet-small-3", "real+static+convnet-small-3", "random+hard+convnet-small-3")
OF_SECOND_DRAW = [("integrate", "ufc+seed-1-3"), ("select", "real+seed-1-3"), ("select", "random+seed-1-3"),
                  ("label", "ufc+seed-1-3"), ("validate", "ufc+seed-1+static+convnet-small-3")]
PIPELINE = [("prepare", None), ("initial", None), *(("teacher", name) for name in TEACHERS),
            *(("generate", name) for name in TEACHERS), ("integrate", "ufc-3"), ("select", "real-3"),
            ("select", "random-3"), *(("label", f"{name}-3") for name in SETS),
            *(("validate", cell) for cell in STUDENT_CELLS), ("regions", None)]
"""Of the first draw of real images."""


def run(root: Path, stage: str, cell: str | None) -> UfcContext:
    context = UfcContext.of(root, stage, cell)
    context.pipeline.function(stage)(context)
    return context


def write_params(root: Path, seeds: str = "[]") -> None:
    (root / "paper").mkdir(parents=True)
    for name in ("published", "claims.yaml"):  # what the report reads besides
        (root / "paper" / name).symlink_to(ROOT / "paper" / name)
    text = params_text(DIGITS).replace("[alpha, beta]", f"[{', '.join(TEACHERS)}]").replace("[3, 10]", f"[{BUDGET}]")
    text = text.replace("seeds: [1]", f"seeds: {seeds}")
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
    counts = [MadeSet.read(workspace / f"records/sets/{name}-3/record.json") for name in SETS]
    assert [found.num_images for found in counts] == [60, 20, 30]
    assert [found.num_counted for found in counts] == [24, 20, 30]
    assert {found.num_allowed for found in counts} == {30}
    stored = counts[0].stored_bytes
    assert stored.real_images == 20 * 192 and stored.compensators == 4 * 192 * 4
    assert stored.static_labels == 60 * 10 * 4
    assert stored.integrated == sum(path.stat().st_size for path in (workspace / "sets/ufc-3").rglob("*.jpg"))


def test_a_sets_pictures_are_its_images_side_by_side(workspace: Path) -> None:
    record = MadeSet.read(workspace / "records/sets/ufc-3/record.json")
    images = read_image_set(workspace / "sets/ufc-3").images.view(10, 6, 3, 8, 8)
    assert [(slot.architecture, slot.image) for slot in record.pictures.slots] == [
        (name, image) for name in (None, *TEACHERS) for image in range(2)]
    for number, slot in enumerate(record.pictures.slots):
        with Image.open(workspace / "records/sets/ufc-3" / slot.png) as picture:
            strip = torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # (3, 8, 10 * 8)
        assert torch.equal(strip, torch.cat(list(images[:, number]), dim=2))
    assert {path.name for path in (workspace / "records/sets/ufc-3").glob("compensator-*.png")} == {
        shown.png for shown in record.pictures.compensators} and len(record.pictures.compensators) == 4


def test_flat_metrics_and_plots_are_of_the_records(workspace: Path) -> None:
    paths = UfcPaths(workspace)
    for cell in STUDENT_CELLS:
        record = Validated.read(paths.record("validate", cell))
        for protocol, measure in (("held-out", "best"), ("faithful", "best_on_test")):
            values = [getattr(seed, measure) for seed in record.seeds]
            assert read_json(paths.metric(protocol, cell)) == {
                "accuracy": pytest.approx(np.mean(values), abs=1e-4),
                "accuracy_std": pytest.approx(np.std(values, ddof=1), abs=1e-4)}
        rows = list(csv.DictReader(paths.record("validate", cell).with_name("accuracy.csv").open()))
        assert [int(row["epoch"]) for row in rows] == record.seeds[0].curves.epoch
        assert float(rows[-1]["test_accuracy"]) == pytest.approx(record.mean.last, abs=1e-4)
    for name in TEACHERS:
        taught = TaughtNetwork.read(paths.record("teacher", name))
        assert read_json(paths.metric("held-out", f"teacher+{name}")) == {
            "accuracy": pytest.approx(taught.accuracy.test, abs=1e-4)}
        rows = list(csv.DictReader(paths.record("generate", name).with_name("loss.csv").open()))
        assert list(rows[0]) == ["iteration", "cross_entropy", "bn", "loss"] and len(rows) == 5


def test_the_three_sets_share_their_real_images(workspace: Path) -> None:
    ufc, real, random = (read_image_set(workspace / f"sets/{name}-3") for name in SETS)
    by_class = ufc.images.view(10, 6, 3, 8, 8)
    assert torch.equal(by_class[:, :2].flatten(0, 1), real.images)
    assert torch.equal(random.images.view(10, 3, 3, 8, 8)[:, :2].flatten(0, 1), real.images)
    assert not torch.equal(by_class[:, 2:4], by_class[:, :2])


def test_a_further_draw_has_other_images_and_leaves_the_first_as_it_is(workspace: Path, tmp_path: Path) -> None:
    write_params(tmp_path, "[1]")
    of_first_draw = [(stage, cell) for stage, cell in PIPELINE if stage not in ("validate", "regions")]
    for stage, cell in [*of_first_draw, *OF_SECOND_DRAW]:
        run(tmp_path, stage, cell)
    for name in SETS:
        images = {path.name: sha256(path) for path in (workspace / f"sets/{name}-3").rglob("*.*")}
        assert {path.name: sha256(path) for path in (tmp_path / f"sets/{name}-3").rglob("*.*")} == images
    first, second = ([read_image_set(tmp_path / f"sets/{name}{draw}-3").images.view(10, -1, 3, 8, 8) for name in SETS]
                     for draw in ("", "+seed-1"))
    ufc, real, random = second
    assert torch.equal(ufc[:, :2], real) and torch.equal(random[:, :2], real)
    for label in range(10):  # no image of a class is in both draws
        one, other = ({image.numpy().tobytes() for image in draw[2][label]} for draw in (first, second))
        assert len(one) == len(other) == 3 and not one & other
    compensators, _ = read_tensors(tmp_path / "compensators/convnet-small.safetensors")
    assert len(next(iter(compensators.values()))) == 4  # two image indices of each draw
    assert not torch.equal(ufc[:, 2:4] - real, first[0][:, 2:4] - first[1])  # with compensators of their own
    record = Validated.read(tmp_path / "records/validate/ufc+seed-1+static+convnet-small-3/record.json")
    assert (record.cell.set, record.num_images) == ("ufc+seed-1", 60)
    assert MadeSet.read(tmp_path / "records/sets/ufc+seed-1-3/record.json").pictures is None


def test_static_labels_are_the_mean_of_the_teachers_outputs(workspace: Path) -> None:
    context = UfcContext.of(workspace, "label", "ufc-3")
    images = read_image_set(workspace / "sets/ufc-3")
    inputs = normalisation_of(context.params).normalise(images.images)
    with torch.no_grad():
        first, second = (teacher(inputs) for teacher in read_teachers(context).values())
    stored, _ = read_tensors(workspace / "labels/ufc-3.safetensors")
    torch.testing.assert_close(stored["logits"], (first + second) / 2)


def test_students_of_a_budget_see_as_many_images(workspace: Path) -> None:
    found = {cell: Validated.read(workspace / f"records/validate/{cell}/record.json") for cell in STUDENT_CELLS}
    seen = {cell: record.num_images * record.epochs for cell, record in found.items()}
    assert {count for cell, count in seen.items() if "dynamic" not in cell} == {60 * 4}
    assert {count for cell, count in seen.items() if "dynamic" in cell} == {60 * 2}
    costs = {cell: record.cost.to_json() for cell, record in found.items()}
    assert costs["ufc+dynamic+convnet-small-3"] == {"label_bytes": 0, "teacher_passes": 2 * 60 * 2}
    assert costs["ufc+static+convnet-small-3"] == {"label_bytes": 2400, "teacher_passes": 2 * 60}
    assert costs["random+hard+convnet-small-3"] == {"label_bytes": 0, "teacher_passes": 0}


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
    assert Validated.read(workspace / f"records/validate/{cell}/record.json").seeds[0].last == pytest.approx(right)


def test_the_report_finds_every_cell(workspace: Path) -> None:
    assert "not run" not in results_text(workspace)


def test_other_images_than_those_prepared_are_refused(tmp_path: Path) -> None:
    write_params(tmp_path / "workspace")
    context = run(tmp_path / "workspace", "prepare", None)
    path = context.paths.record("prepare")
    write_json(path, read_json(path) | {"sha256": {"train": "0" * 64, "val": "0" * 64, "test": "0" * 64}})
    with pytest.raises(ValueError, match=r"prepare\.json: the images of train have .* run stage prepare again"):
        read_pinned_data(context)


@pytest.mark.parametrize(("stage", "cell", "words"), [
    ("teacher", "resnet18", "teachers.architectures has no 'resnet18'; expected one of convnet-small, resnet-small"),
    ("integrate", "random-3", "expected ufc-3"),
    ("select", "ufc-3", "expected random-3 or real-3"),
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


def test_released_files_are_imported_and_others_are_refused(workspace: Path, tmp_path: Path) -> None:
    """Tensors as the release prepares them, and another workspace's teachers, in place of a draw and of training."""
    params, first = read_yaml(workspace / "params.yaml"), UfcPaths(workspace)
    (tmp_path / "init").mkdir()
    for image in range(2):
        torch.save(NORMALISATIONS["digits"].normalise(InitialImages(first.initial).read(image)),
                   tmp_path / f"init/tensor_{image}.pt")
    again = UfcPaths(tmp_path / "again")
    params["data"]["initial_from"], params["teachers"]["import_from"] = {"path": f"{tmp_path}/init"}, {
        "path": str(workspace)}
    told = []
    for stage, cell in (("prepare", None), ("initial", None), ("teacher", TEACHERS[1])):
        for _ in range(2):  # first without a hash, which the error names, then with it
            write_json(again.params, params)
            try:
                run(again.root, stage, cell)
            except ValueError as error:
                told += re.findall(r"sha256: not given, but what is at .* has ([0-9a-f]{64})", str(error))
                params["data" if stage == "initial" else "teachers"][
                    "initial_from" if stage == "initial" else "import_from"]["sha256"] = told[-1]
    assert len(told) == 2
    for image in range(2):
        assert torch.equal(InitialImages(again.initial).read(image), InitialImages(first.initial).read(image))
    assert again.teacher(TEACHERS[1]).read_bytes() == first.teacher(TEACHERS[1]).read_bytes()
    accuracies = [TaughtNetwork.read(paths.record("teacher", TEACHERS[1])).accuracy for paths in (first, again)]
    assert accuracies[0] == accuracies[1]
    (tmp_path / "init/tensor_1.pt").write_bytes((tmp_path / "init/tensor_0.pt").read_bytes())
    with pytest.raises(ValueError, match=r"data\.initial_from\.sha256: .* fetch the files again"):
        run(again.root, "initial", None)
