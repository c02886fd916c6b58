"""What a report leaves out, what its headline says, and the inventory of the paper's tables and figures."""

import json
import shutil
from pathlib import Path

import pytest

from repblend.report.evidence import claims
from repblend.report.figures import FIGURES
from repblend.report.first import recall_plot
from repblend.report.grid_records import GridRecords
from repblend.report.markup import part
from repblend.report.page import without_sections
from repblend.report.results import results_table
from repblend.report.screen import verdicts_html
from repblend.report.sections import INVENTORY, REPORT, SECTIONS, TABLES, inventory_table
from repblend.report.studies import ablation_table
from tests.report.conftest import make_report
from tests.report.synthetic import (
    BUDGETS,
    ROOT,
    WHOLE_GRID,
    path_of,
    read,
    write_grid,
    write_workspace,
)

SMALL_GRID = WHOLE_GRID | {"budgets": [50, 100], "coresets": ["random", "herding", "k-center"], "encoder_distilled": [],
                           "encoder_coresets": [], "compared_budgets": [], "variants": {}, "all_variants": [],
                           "seeds": [], "pairs": {}, "encoder_pairs": [], "larger_pairs": [], "pair_distilled": [],
                           "pair_encoder_distilled": [], "regimes": []}
"""That of the quickstart."""
LEFT_OUT = ["How much depends on the draw of a set", "The paper's Tables 1 and 2", "What carries a set",
            "Blending, here and in the paper's regime",
            "How much the settings matter", "Noise in the place of blending",
            "Other pairs of encoders (the paper's Figures 6 and 7)", "Larger encoders",
            "The paper's Table 3: larger encoders", "Other image encoders (the paper's Table 4)",
            "Other tasks (the paper's Table 5)", "What distilling costs (the paper's Table 6)",
            "Collapse beside the paper's Figure 2", "Collapse in reference models"]


def notebook_cells() -> list[dict]:
    return json.loads((ROOT / "paper" / "report.ipynb").read_text())["cells"]


def headings() -> list[str]:
    lines = ["".join(cell["source"]).splitlines()[0] for cell in notebook_cells() if cell["cell_type"] == "markdown"]
    return [line.lstrip("# ") for line in lines if line.startswith("#")]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A workspace with the quickstart's grid."""
    root = write_workspace(tmp_path / "small", budgets=())
    write_grid(root, SMALL_GRID)
    for stage in ("encoder-experts", "evaluate/full-data+encoder-students"):
        path_of(root, stage).unlink()
    return root


def test_sections_are_headings_of_the_notebook_in_its_order_with_tables_and_figures_of_the_report() -> None:
    names = [section.heading for section in SECTIONS]
    assert [heading for heading in headings() if heading in names] == names
    assert {item.section for item in INVENTORY if item.section} <= set(names)
    assert {name for section in SECTIONS for name in section.tables} <= set(TABLES)
    assert {name for section in SECTIONS for name in section.figures} <= set(FIGURES)


def test_every_part_of_a_section_is_shown_under_its_heading() -> None:
    cells = [type("Cell", (), {"cell_type": cell["cell_type"], "source": "".join(cell["source"])})
             for cell in notebook_cells()]
    for section in SECTIONS:
        kept = without_sections(cells, {section.heading})
        dropped = " ".join(cell.source for cell in cells if cell not in kept)
        assert all(f"'{name}'" in dropped for name in (*section.tables, *section.figures)), section.heading
        assert f"# {section.heading}" in dropped
    text = " ".join(cell.source for cell in cells)
    assert "show.verdicts()" in text and "show.pictures()" in text and "show.plot()" in text
    assert all(f"show.table('{name}')" in text or f"show.folded('{name}'" in text or f": '{name}'" in text
               for name in TABLES if name != "claims")
    assert all(f"show.figure('{name}'" in text for name in FIGURES if name not in ("mean-recall", "specimens"))


def test_the_whole_grid_leaves_nothing_out(workspace: Path) -> None:
    assert REPORT.left_out(GridRecords.of(workspace)).no_cells == []


def test_a_report_names_what_its_grid_has_no_cells_for_and_leaves_it_out(small: Path) -> None:
    records = GridRecords.of(small)
    assert [section.heading for section in REPORT.left_out(records).no_cells] == LEFT_OUT
    not_run = [section.heading for section in REPORT.left_out(records).no_records]
    assert not_run == ["How the sets were learned", "Learned similarity", "Modality collapse"]
    make_report(small)
    written = {path.stem for folder in ("tables", "figures") for path in (small / "paper" / folder).iterdir()}
    assert written == (TABLES.keys() | FIGURES.keys()) - {
        name for section in SECTIONS if section.heading in (*LEFT_OUT, *not_run)
        for name in (*section.tables, *section.figures)}
    page = (small / "paper" / "report.html").read_text("utf-8")
    named = " ".join(part.split("</p>")[0] for part in page.split("<b>Not in this report:</b>")[1:])
    for heading in (*LEFT_OUT, *not_run):
        assert heading in named and f">{heading}</h" not in page
    assert "<td>MTT-VL</td>" not in page and "<td>LoRS + RB</td>" not in page
    assert "Not run: nothing here says anything about the paper's claims." in page


@pytest.mark.parametrize(("chosen_by", "words"), [
    ("best-validation", "The test split is not read."), ("last", "the last one is kept"),
    ("best-test", "the one that is best <b>on the test split</b> is kept")])
def test_the_page_says_by_what_the_kept_iteration_was_chosen(chosen_by: str, words: str) -> None:
    passage = part("course", "words.html.j2", run={"chosen_by": [chosen_by]})
    assert words in passage and (chosen_by == "best-validation" or "not read" not in passage)


def test_rows_are_those_of_the_grid(small: Path) -> None:
    records = GridRecords.of(small)
    assert [row.cells[1] for row in ablation_table(records).rows] == ["LoRS + SM", "LoRS + RB + SM = RepBlend"] * 2
    assert [row.cells[1] for row in results_table(records, "held-out").rows][-3:] == [
        "Full training set", "Full training set (experts)", "Chance"]


def test_a_claim_whose_cells_are_not_there_is_named_below_the_table(workspace: Path) -> None:
    for path in (workspace / "records" / "evaluate").glob("lors*-*"):
        shutil.rmtree(path)
    found = {claim.entry.name: claim for claim in claims(GridRecords.of(workspace))}
    assert found["repblend-over-lors"].verdict == "not run" and found["repblend-over-lors"].run == ()
    assert found["repblend-over-coresets"].verdict == "holds"
    html = verdicts_html([*found.values()], "")
    table, _, below = html.partition("</table>")
    assert found["repblend-over-lors"].words in below.partition("Not run here:")[2]
    assert found["repblend-over-lors"].words not in table and found["repblend-over-coresets"].words in table


def test_the_plot_has_what_is_in_the_records(workspace: Path) -> None:
    path_of(workspace, f"evaluate/lors-{max(BUDGETS)}").unlink()
    held_out, faithful = recall_plot(GridRecords.of(workspace)).panels
    lines = {line.title: line for line in held_out.series}
    assert [point.budget for point in lines["LoRS"].points] == [min(BUDGETS)]
    for panel, protocol in ((held_out, "held-out"), (faithful, "faithful")):
        point = {line.title: line for line in panel.series}["RepBlend"].points[-1]
        stored = read(workspace, f"evaluate/repblend-{max(BUDGETS)}")["protocols"][protocol]
        assert (point.number.mean, point.number.std) == (stored["mean"]["mean_recall"], stored["std"]["mean_recall"])
    assert "Random (encoder students)" in lines
    assert [level.title for level in held_out.levels] == [
        "Full training set (heads)", "Full training set (encoder)", "Chance"]


def test_all_figures_and_tables_of_the_paper_are_named() -> None:
    names = " ".join(item.name for item in INVENTORY)
    assert all(f"Figure {number}" in names for number in (1, 2, 3, 4, 5)) and "Figures 6 and 7" in names
    assert all(f"Table {number}" in names for number in range(1, 7))


def test_the_inventory_counts_the_records_behind_ours_and_says_where_there_are_none(workspace: Path) -> None:
    rows = {row.cells[0]: row for row in inventory_table(GridRecords.of(workspace)).rows}
    files = sorted((workspace / "records" / "distill").glob("*/record.json"))
    assert rows["Figure 4"].cells[-1] == len(files) > 0
    assert (workspace / rows["Figure 4"].file) == files[0]
    assert (rows["Table 3"].cells[-1], rows["Table 3"].file) == (1, "records/encode/large/record.json")
