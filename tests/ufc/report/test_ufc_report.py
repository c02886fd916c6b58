"""The unimodal report: every number from a record, ours never taken for the paper's, cells that say 'not run'."""

import csv
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from repblend.report.markup import table_html
from repblend.report.published import read_published
from repblend.store import read_json, sha256, write_json
from repblend.ufc.report import show
from repblend.ufc.report.__main__ import REPORT
from repblend.ufc.report.evidence import claims
from repblend.ufc.report.figures import FIGURES, nearest_point
from repblend.ufc.report.tables import DATASETS, PUBLISHED, TABLES, results_text
from repblend.ufc.report.ufc_records import UfcRecords
from tests.report.browser import audit, browser
from tests.stages.imports import ROOT
from tests.ufc.report.synthetic import BUDGETS, CIFAR10, IMAGENET, STUDENTS, TEACHERS, params_text, write_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return write_workspace(tmp_path / "workspace")


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose report was made; tests do not change it."""
    root = write_workspace(tmp_path_factory.mktemp("ufc") / "workspace")
    make_report(root)
    return root


def make_report(root: Path) -> None:
    REPORT.make(root)


def rows(root: Path, table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(TABLES[table](UfcRecords.of(root)).to_csv())))


def outputs(root: Path) -> dict[str, str]:
    folders = [root / "paper" / name for name in ("tables", "figures")]
    return {str(path.relative_to(root)): sha256(path)
            for path in [root / "paper" / "report.html", *(file for folder in folders for file in folder.iterdir())]}


def test_every_table_and_figure_is_there_and_the_page_loads_nothing(reported: Path) -> None:
    expected = {f"paper/tables/{name}.{kind}" for name in TABLES for kind in ("csv", "md", "tex")}
    expected |= {f"paper/figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "pdf", "png")}
    assert set(outputs(reported)) == expected | {"paper/report.html"}
    html = (reported / "paper" / "report.html").read_text()
    assert len(re.findall(r'<img [^>]*src="data:image/svg', html)) == len(FIGURES) - 1  # accuracy is HTML
    assert len(re.findall(r'<img [^>]*src="data:image/', html)) == html.count("<img ")
    assert all(f'id="table-{name}"' in html for name in TABLES) and html.count("<script") == 1
    assert "python -m repblend.ufc.stages validate ufc+static+alpha-3" in html
    assert "percentage of &lt;other&gt; points" in html
    links, names = set(re.findall(r'href="#([^"]+)"', html)), re.findall(r'id="([^"]+)"', html)
    assert links <= set(names) and len(names) == len(set(names))


def test_the_page_fits_and_is_legible_in_a_browser(reported: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as chromium:
        for width, scheme in ((360, "dark"), (1400, "light")):
            assert audit(chromium, reported / "paper" / "report.html", width, scheme)["seen"] > 200
        assert chromium.value("document.querySelectorAll('.plot .point').length") > 0
        assert len(re.findall(rb"/Type\s*/Page\b(?!s)", chromium.pdf())) <= 15


def test_the_report_has_the_same_bytes_in_another_folder(reported: Path, tmp_path: Path) -> None:
    again = write_workspace(tmp_path / "elsewhere")
    make_report(again)
    assert outputs(again) == outputs(reported)


def test_every_number_of_the_results_is_the_one_in_its_file(workspace: Path) -> None:
    found = rows(workspace, "results")
    assert len(found) == len(BUDGETS) * len(STUDENTS) * 6 + len(TEACHERS)
    for row in found[:-len(TEACHERS)]:
        content = read_json(workspace / row["record"])
        assert (row["best"], row["best_std"]) == (str(content["mean"]["best"]), str(content["std"]["best"]))
        assert row["ipc"] == str(content["cell"]["budget"])
    for html in re.findall(r'title="(records/[^"]+)"', table_html(TABLES["results"](UfcRecords.of(workspace)))):
        file, key = html.split(": ")
        value = read_json(workspace / file)
        for part in key.split("."):
            value = value[part]
        assert isinstance(value, float)


def test_the_best_of_a_budget_is_marked_once_per_column(workspace: Path) -> None:
    text = TABLES["results"](UfcRecords.of(workspace)).to_markdown()
    assert text.count("**") == 2 * 3 * len(BUDGETS)


def test_a_claim_is_the_difference_of_its_two_files(workspace: Path) -> None:
    found = rows(workspace, "claims")
    files = [[f"records/validate/{name}{draw}+{labels}+alpha-3/record.json" for draw in ("", "+seed-1")]
             for name, labels in (("ufc", "static"), ("random", "hard"))]
    better, other = ([read_json(workspace / file) for file in own] for own in files)
    apart = [one["mean"]["best"] - two["mean"]["best"] for one, two in zip(better, other, strict=True)]
    assert float(found[0]["effect"]) == pytest.approx(sum(apart) / 2)
    between = math.sqrt(sum(each["std"]["best"]**2 for each in (*better, *other)) / 2)
    assert float(found[0]["between_students"]) == pytest.approx(between)
    assert found[0]["files"] == "; ".join(files[0] + files[1])
    half = 12.7062047 * abs(apart[0] - apart[1]) / 2  # Student's t with one degree of freedom, two draws
    assert float(found[0]["low"]) == pytest.approx(sum(apart) / 2 - half)
    of_accuracy = found[:len(BUDGETS) * len(STUDENTS)]
    assert {(row["claim"], row["sets"]) for row in of_accuracy} == {(found[0]["claim"], "2 : 2")}


def test_draws_are_summed_up(workspace: Path) -> None:
    found = rows(workspace, "sets")
    assert len(found) == len(BUDGETS) * len(STUDENTS) * 6
    ours = [read_json(workspace / f"records/validate/ufc{draw}+static+alpha-3/record.json")["mean"]["best"]
            for draw in ("", "+seed-1")]
    row = next(row for row in found if row["record"].endswith("/ufc+static+alpha-3/record.json"))
    assert (row["sets"], float(row["mean"])) == ("2", pytest.approx(sum(ours) / 2))
    assert float(row["between_sets"]) == pytest.approx(abs(ours[0] - ours[1]) / math.sqrt(2))
    (workspace / "records/validate/ufc+seed-1+static+alpha-3/record.json").unlink()
    row = next(row for row in rows(workspace, "sets") if row["sets"] != "2")
    assert (row["sets"], row["mean"]) == ("1 of 2", "")


def test_what_labels_cost_is_counted(workspace: Path) -> None:
    claim = next(claim for claim in claims(UfcRecords.of(workspace)) if claim.entry.name == "label-cost")
    for each in claim.run:
        first, second = (read_json(workspace / file)["cost"]["teacher_passes"] for file in each.files)
        assert each.effect is not None and each.effect.estimate == first / second
        assert each.verdict == ("holds" if first > second else "does not hold" if first < second else "undecided")
    assert claim.run


def test_without_records_everything_says_not_run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (workspace / "records").rglob("*.json"):
        path.unlink()
    assert {row["status"] for name in ("results", "claims", "storage") for row in rows(workspace, name)} == {"not run"}
    for draw in FIGURES.values():
        draw(UfcRecords.of(workspace), workspace)
    monkeypatch.chdir(workspace / "paper")
    assert "nothing here says anything about the paper's claims" in show.verdicts().data
    assert "No stage was run" in show.sources().data


def test_ours_stands_beside_published_numbers_of_the_same_data_set_only(workspace: Path, tmp_path: Path) -> None:
    assert not any(row["ours"] for row in rows(workspace, "published"))
    found = rows(write_workspace(tmp_path / "cifar", CIFAR10), "published")
    ours = [row for row in found if row["ours"]]
    assert {(row["dataset"], row["ipc"], row["student"], row["method"]) for row in ours} == {
        ("CIFAR-10", "10", "ResNet18", method) for method in ("Random", "INFER", "INFER+Dyn")}
    infer = next(row for row in ours if row["method"] == "INFER")
    content = read_json(tmp_path / "cifar" / infer["record"])
    assert infer["published"] == "32.0" and float(infer["ours"]) == content["mean"]["last"]
    assert float(infer["difference_in_std"]) == pytest.approx(
        (content["mean"]["last"] - 32.0) / (content["std"]["last"] ** 2 + 0.5**2) ** 0.5)


def test_torchvisions_networks_stand_beside_what_the_paper_calls_the_same(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "imagenet", IMAGENET, student="torchvision-resnet18")
    ours = [row for row in rows(root, "published") if row["ours"]]
    assert {(row["dataset"], row["ipc"], row["student"], row["method"]) for row in ours} == {
        ("ImageNet-1k", "10", "ResNet18", method) for method in ("Random", "INFER", "INFER+Dyn")}
    assert "ResNet18" in {row["student"] for row in rows(root, "results")}


def test_published_and_ours_look_different(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "cifar", CIFAR10)
    table = TABLES["published"](UfcRecords.of(root))
    assert "*32.0 (0.5)*" in table.to_markdown()
    assert table_html(table).count('class="number published"') == len(table.rows) == 123


def test_the_published_file_has_the_numbers_that_the_paper_is_known_by() -> None:
    entries = {(entry["dataset"], entry["budget"], entry["student"], entry["quantity"], entry["method"]): entry
               for entry in read_published(ROOT, "ufc")}
    known = {("cifar100", 50, "resnet18", "ufc-dynamic"): ("68.9", "0.1"),
             ("imagenet", 50, "resnet18", "ufc-static"): ("51.8", "0.2"),
             ("imagenet", 50, "resnet18", "sre2l-static"): ("17.3", "0.5"),
             ("cifar100", 100, "convnet128", "ufc-static"): ("57.0", "0.02"),
             ("tiny-imagenet", 50, "resnet18", "g-vbsm"): ("47.6", "0.3")}
    for (dataset, budget, student, method), (mean, std) in known.items():
        entry = entries[dataset, budget, student, "accuracy_percent", method]
        assert (str(entry["mean"]), str(entry["std"])) == (mean, std)
    assert {key[0] for key in entries} <= set(DATASETS) and {key[4] for key in entries} <= set(PUBLISHED)


@pytest.mark.parametrize(("file", "key", "value", "words"), [
    ("validate/ufc+static+alpha-3/record.json", "mean", {"best": 1.0, "last": 1.0, "best_on_test": 1.0},
     "mean.best is 1.0"),
    ("validate/ufc+static+alpha-3/record.json", "unit", "fraction", "unit"),
    ("regions/ufc+static+alpha-3/record.json", "disagreement", "high", "disagreement: Input should be a valid number"),
    ("teacher/alpha/record.json", "accuracy", {"val": 1.0, "test": 101.0}, "accuracy.test"),
])
def test_a_wrong_record_is_named_with_its_key(workspace: Path, file: str, key: str, value: object,
                                                    words: str) -> None:
    path = workspace / "records" / file
    write_json(path, read_json(path) | {key: value})
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        for build in TABLES.values():
            build(UfcRecords.of(workspace))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["x,y\n1,2\n", "x,y,label,predicted\n1,2,a,3\n", None])
def test_points_that_are_not_as_expected_are_named(workspace: Path, text: str | None) -> None:
    path = workspace / "records/regions/ufc+static+alpha-3/plane.csv"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ValueError, match=r"alpha-3/plane\.csv: expected a row per test image"):
        FIGURES["regions"](UfcRecords.of(workspace), workspace)


def test_the_ground_takes_the_nearest_point() -> None:
    plane = np.asarray([[-0.5, 0.0], [0.5, 0.0]])
    ground = nearest_point(plane, 1.0)
    half = ground.shape[1] // 2
    assert (ground[:, :half] == 0).all() and (ground[:, half:] == 1).all()


def test_results_as_text_say_what_was_run(workspace: Path) -> None:
    text = results_text(workspace)
    assert "UFC, static labels (INFER)" in text and "not run" not in text


def test_the_parameters_of_the_synthetic_workspace_are_what_they_seem() -> None:
    assert "image_size: 8" in params_text() and json.dumps(BUDGETS) in params_text()
