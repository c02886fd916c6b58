"""Tables against the records they are made from, read here without the package."""

import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repblend.escape import latex, markdown
from repblend.report.grid_records import GridRecords
from repblend.report.results import results_table, results_text, seeds_table, storage_table
from repblend.report.sections import TABLES
from repblend.report.table import Column, Number, Table, TableRow
from repblend.titles import title
from tests.report.synthetic import BUDGETS, ENCODER_DISTILLED, FULL_DATA, METHODS, RECALLS, TRAINED, path_of, read

NAMES = {title(name): name for name in (*METHODS, "full-data")}
ALL_RECALLS = (*RECALLS, "mean_recall")


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def file_of(row: dict[str, str]) -> str:
    method = NAMES[row["method"]]
    if row["students"] == "encoder" and method not in ENCODER_DISTILLED:
        method += "+encoder-students"
    return f"evaluate/{method}" if method in FULL_DATA else f"evaluate/{method}-{row['pairs']}"


@pytest.mark.parametrize("protocol", ["held-out", "faithful"])
def test_every_number_of_the_csv_is_the_one_in_the_record_to_the_last_digit(workspace: Path, protocol: str) -> None:
    *rows, experts, chance = parsed(results_table(GridRecords.of(workspace), protocol).to_csv())
    assert len(rows) == len(BUDGETS) * len(TRAINED) + 2
    for row in rows:
        stored = read(workspace, file_of(row))["protocols"][protocol]
        assert row["record"] == f"records/{file_of(row)}/record.json"
        for name in ALL_RECALLS:
            assert float(row[name]) == stored["mean"][name]
            assert float(row[f"{name}_std"]) == stored["std"][name]
    stored = read(workspace, "experts")["test"]
    assert (experts["method"], experts["record"]) == ("Full training set (experts)", "records/experts.json")
    assert [float(experts[name]) for name in ALL_RECALLS] == [stored["mean"][name] for name in ALL_RECALLS]
    assert [float(experts[f"{name}_std"]) for name in ALL_RECALLS] == [stored["std"][name] for name in ALL_RECALLS]
    assert [float(chance[name]) for name in ALL_RECALLS] == [0.31] * 7
    assert chance["record"] == "records/evaluate/chance/record.json"


def test_the_seeds_table_has_every_student_with_its_epoch(workspace: Path) -> None:
    rows = parsed(seeds_table(GridRecords.of(workspace)).to_csv())
    assert len(rows) == (len(BUDGETS) * len(TRAINED) + 2) * 2 * 5  # cells and full data, protocols, seeds
    for row in rows:
        seed = read(workspace, file_of(row))["protocols"][row["protocol"]]["seeds"][int(row["seed"])]
        assert int(row["epoch"]) == seed["epoch"]
        assert [float(row[name]) for name in ALL_RECALLS] == [seed[name] for name in ALL_RECALLS]


def test_rows_go_by_budget_from_the_baselines_to_the_method(workspace: Path) -> None:
    rows = results_table(GridRecords.of(workspace), "held-out").rows
    assert [row.cells[:2] for row in rows] == [(budget, title(method)) for budget in BUDGETS for method in TRAINED] + [
        *[(1695, "Full training set")] * 2, (1695, "Full training set (experts)"), ("", "Chance")]
    assert METHODS[0] == "random" and METHODS[-2:] == ("repblend-without-blending", "repblend")


def test_markdown_rounds_to_a_tenth_and_marks_the_best_of_a_budget(workspace: Path) -> None:
    stored = {name: read(workspace, f"evaluate/{name}-100")["protocols"]["held-out"]
              for name in TRAINED}
    best = max(stored, key=lambda name: stored[name]["mean"]["ir_at_5"])
    shown = f"**{stored[best]['mean']['ir_at_5']:.1f} ± {stored[best]['std']['ir_at_5']:.1f}**"
    markdown = results_table(GridRecords.of(workspace), "held-out").to_markdown().splitlines()
    column = [line.split("|")[5].strip() for line in markdown if line.startswith("| 100 |")]
    assert shown in column
    assert sum(cell.startswith("**") for cell in column) == 1


def test_latex_is_a_tabular_with_as_many_cells_in_every_row(workspace: Path) -> None:
    lines = results_table(GridRecords.of(workspace), "faithful").to_latex().splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == len(BUDGETS) * len(TRAINED) + 5
    assert {line.count("&") for line in rows} == {9}
    assert all("±" not in line for line in rows)


def test_the_captions_say_on_which_split_the_epoch_was_chosen(workspace: Path) -> None:
    records = GridRecords.of(workspace)
    captions = {name: TABLES[name](records).caption for name in ("results-held-out", "results-faithful")}
    assert "chosen on validation" in captions["results-held-out"]
    assert "selected on test" in captions["results-faithful"]


def test_a_cell_that_was_not_run_says_so_everywhere_and_spoils_nothing(workspace: Path) -> None:
    path_of(workspace, "evaluate/herding-50").unlink()
    table = results_table(GridRecords.of(workspace), "held-out")
    row = next(row for row in parsed(table.to_csv()) if row["method"] == "Herding" and row["pairs"] == "50")
    assert row["status"] == "not run"
    assert {row[name] for name in ALL_RECALLS} == {""}
    assert sum(row["status"] == "run" for row in parsed(table.to_csv())) == len(BUDGETS) * len(TRAINED) + 3
    for text in (table.to_markdown(), table.to_latex(), table.to_text()):
        assert text.count("not run") == 7
    assert "not run" in storage_table(GridRecords.of(workspace)).to_markdown()


def test_tables_of_an_empty_workspace_say_that_nothing_was_run(workspace: Path) -> None:
    shutil.rmtree(workspace / "records")
    for build in TABLES.values():
        statuses = {row["status"] for row in parsed(build(GridRecords.of(workspace)).to_csv())}
        assert "not run" in statuses and statuses <= {"not run", "published", "released code"}


def test_the_text_shows_both_protocols_held_out_first(workspace: Path) -> None:
    text = results_text(workspace)
    stored = read(workspace, "evaluate/repblend-100")["protocols"]
    held_out, faithful = (f"{stored[name]['mean']['mean_recall']:.1f} ± {stored[name]['std']['mean_recall']:.1f}"
                          for name in ("held-out", "faithful"))
    assert text.index("Held-out") < text.index(held_out) < text.index("Faithful") < text.rindex(faithful)
    assert max(map(len, text.splitlines()[2:5 + len(TRAINED)])) < 130


def test_nothing_of_the_report_imports_torch_and_its_text_no_matplotlib() -> None:
    program = ("import sys, repblend.report.results; before = {'matplotlib', 'jinja2'} & set(sys.modules); "
               "import repblend.report.__main__, repblend.report.show; print(before, 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": ":".join(path for path in sys.path if path)})
    assert done.stdout.strip() == "set() False"


def test_text_is_escaped_for_every_format() -> None:
    rows = (TableRow(("=1+1", "a|b & 5% of $x_1$ {~^} \\", Number(-1.5, None, "k")), None),)
    table = Table("t", "caption\nof two lines", (Column("a", "A"), Column("b", "B_1 #"), Column("c", "C")), rows)
    (row,) = parsed(table.to_csv())
    assert (row["a"], row["b"], row["c"]) == ("'=1+1", "a|b & 5% of $x_1$ {~^} \\", "-1.5")
    assert r"| \=1+1 | a\|b &amp; 5% of \$x_1\$ {\~^} \\ | -1.5 |" in table.to_markdown().splitlines()
    assert r"=1+1 & a$|$b \& 5\% of \$x\_1\$ \{\textasciitilde{}\textasciicircum{}\} \textbackslash{} & -1.5 \\" in (
        table.to_latex().splitlines())
    assert table.to_latex().startswith("% caption of two lines\n") and r"B\_1 \#" in table.to_latex()


@pytest.mark.parametrize(("words", "escaped"), [
    ("_emphasis_ and *strong* <b> [x] `c`", r"\_emphasis\_ and \*strong\* \<b\> \[x\] \`c\`"),
    ("similarity_rank 10", "similarity_rank 10")])
def test_markdown_escapes_what_would_be_markup(words: str, escaped: str) -> None:
    assert markdown(words) == escaped


def test_latex_escapes_a_method_that_was_made_bold() -> None:
    best = TableRow(("a", Number(1.0, 0.5, "k", best=True)), "file")
    table = Table("t", "c", (Column("a", "A"), Column("b", "B")), (best,))
    assert r"a & \textbf{1.0 $\pm$ 0.5} \\" in table.to_latex().splitlines()
    assert latex("50% & more") == r"50\% \& more"
