"""Tables against the metrics files they are made from, read here without the package."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest

from repblend.report.metrics import Metrics
from repblend.report.tables import all_tables, results_table, results_text, seeds_table, storage_table
from repblend.report.titles import title
from tests.report.synthetic import BUDGETS, ENCODER_DISTILLED, FULL_DATA, METHODS, RECALLS, TRAINED, read

TITLES = {title(name): name for name in (*METHODS, "full-data")}
ALL_RECALLS = (*RECALLS, "mean_recall")


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def file_of(row: dict[str, str]) -> str:
    method = TITLES[row["method"]]
    if row["students"] == "encoder" and method not in ENCODER_DISTILLED:
        method += "+encoder-students"
    return f"evaluate/{method}" if method in FULL_DATA else f"evaluate/{method}-{row['pairs']}"


@pytest.mark.parametrize("protocol", ["held-out", "faithful"])
def test_every_number_of_the_csv_is_the_one_in_the_metrics_to_the_last_digit(workspace: Path, protocol: str) -> None:
    *rows, chance = parsed(results_table(Metrics.of(workspace), protocol).to_csv())
    assert len(rows) == len(BUDGETS) * len(TRAINED) + 2
    for row in rows:
        stored = read(workspace, file_of(row))["protocols"][protocol]
        assert row["metrics_file"] == f"metrics/{file_of(row)}.json"
        for name in ALL_RECALLS:
            assert float(row[name]) == stored["mean"][name]
            assert float(row[f"{name}_std"]) == stored["std"][name]
    assert [float(chance[name]) for name in ALL_RECALLS] == [0.31] * 7
    assert chance["metrics_file"] == "metrics/evaluate/chance.json"


def test_the_seeds_table_has_every_student_with_its_epoch(workspace: Path) -> None:
    rows = parsed(seeds_table(Metrics.of(workspace)).to_csv())
    assert len(rows) == (len(BUDGETS) * len(TRAINED) + 2) * 2 * 5  # cells and full data, protocols, seeds
    for row in rows:
        seed = read(workspace, file_of(row))["protocols"][row["protocol"]]["seeds"][int(row["seed"])]
        assert int(row["epoch"]) == seed["epoch"]
        assert [float(row[name]) for name in ALL_RECALLS] == [seed[name] for name in ALL_RECALLS]


def test_rows_go_by_budget_from_the_baselines_to_the_method(workspace: Path) -> None:
    rows = results_table(Metrics.of(workspace), "held-out").rows
    assert [row.cells[:2] for row in rows] == [(budget, title(method)) for budget in BUDGETS for method in TRAINED] + [
        *[(1695, "Full training set")] * 2, ("", "Chance")]
    assert METHODS[0] == "random" and METHODS[-2:] == ("repblend-without-blending", "repblend")


def test_markdown_rounds_to_a_tenth_and_marks_the_best_of_a_budget(workspace: Path) -> None:
    stored = {name: read(workspace, f"evaluate/{name}-100")["protocols"]["held-out"]
              for name in TRAINED}
    best = max(stored, key=lambda name: stored[name]["mean"]["ir_at_5"])
    shown = f"**{stored[best]['mean']['ir_at_5']:.1f} ± {stored[best]['std']['ir_at_5']:.1f}**"
    markdown = results_table(Metrics.of(workspace), "held-out").to_markdown().splitlines()
    column = [line.split("|")[5].strip() for line in markdown if line.startswith("| 100 |")]
    assert shown in column
    assert sum(cell.startswith("**") for cell in column) == 1


def test_latex_is_a_tabular_with_as_many_cells_in_every_row(workspace: Path) -> None:
    lines = results_table(Metrics.of(workspace), "faithful").to_latex().splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == len(BUDGETS) * len(TRAINED) + 4
    assert {line.count("&") for line in rows} == {9}
    assert all("±" not in line for line in rows)


def test_the_captions_say_on_which_split_the_epoch_was_chosen(workspace: Path) -> None:
    captions = {table.name: table.caption for table in all_tables(Metrics.of(workspace))}
    assert "chosen on validation" in captions["results-held-out"]
    assert "selected on test" in captions["results-faithful"]


def test_a_cell_that_was_not_run_says_so_everywhere_and_spoils_nothing(workspace: Path) -> None:
    (workspace / "metrics" / "evaluate" / "herding-50.json").unlink()
    table = results_table(Metrics.of(workspace), "held-out")
    row = next(row for row in parsed(table.to_csv()) if row["method"] == "Herding" and row["pairs"] == "50")
    assert row["status"] == "not run"
    assert {row[name] for name in ALL_RECALLS} == {""}
    assert sum(row["status"] == "run" for row in parsed(table.to_csv())) == len(BUDGETS) * len(TRAINED) + 2
    for text in (table.to_markdown(), table.to_latex(), table.to_text()):
        assert text.count("not run") == 7
    assert "not run" in storage_table(Metrics.of(workspace)).to_markdown()


def test_tables_of_an_empty_workspace_say_that_nothing_was_run(workspace: Path) -> None:
    for path in (workspace / "metrics").rglob("*.json"):
        path.unlink()
    for table in all_tables(Metrics.of(workspace)):
        statuses = {row["status"] for row in parsed(table.to_csv())}
        assert "not run" in statuses and statuses <= {"not run", "published"}


def test_the_text_shows_both_protocols_held_out_first(workspace: Path) -> None:
    text = results_text(workspace)
    stored = read(workspace, "evaluate/repblend-100")["protocols"]
    held_out, faithful = (f"{stored[name]['mean']['mean_recall']:.1f} ± {stored[name]['std']['mean_recall']:.1f}"
                          for name in ("held-out", "faithful"))
    assert text.index("Held-out") < text.index(held_out) < text.index("Faithful") < text.rindex(faithful)
    assert max(map(len, text.splitlines()[2:5 + len(TRAINED)])) < 130


def test_nothing_of_the_report_imports_torch() -> None:
    program = ("import sys, repblend.report.__main__, repblend.report.show, repblend.report.page; "
               "print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": ":".join(path for path in sys.path if path)})
    assert done.stdout.strip() == "False"
