"""The inventory of the paper's tables and figures, against the notebook's headings and the files of a workspace."""

import json
from pathlib import Path

from repblend.report.inventory import ITEMS, inventory_table
from repblend.report.metrics import Metrics

ROOT = Path(__file__).parents[2]


def test_every_section_that_it_names_is_a_heading_of_the_report() -> None:
    notebook = json.loads((ROOT / "paper" / "report.ipynb").read_text())
    lines = [line for cell in notebook["cells"] if cell["cell_type"] == "markdown"
             for line in "".join(cell["source"]).splitlines()]
    headings = {line.lstrip("# ") for line in lines if line.startswith("#")}
    assert {item.section for item in ITEMS if item.section} <= headings


def test_all_figures_and_tables_of_the_paper_are_named() -> None:
    names = " ".join(item.name for item in ITEMS)
    assert all(f"Figure {number}" in names for number in (1, 2, 3, 4, 5)) and "Figures 6 and 7" in names
    assert all(f"Table {number}" in names for number in range(1, 7))


def test_it_counts_the_files_behind_ours_and_says_where_there_are_none(workspace: Path) -> None:
    rows = {row.cells[0]: row for row in inventory_table(Metrics.of(workspace)).rows}
    files = sorted((workspace / "metrics" / "distill").iterdir())
    assert rows["Figure 4"].cells[-1] == len(files) > 0
    assert (workspace / rows["Figure 4"].file) == files[0]
    assert (rows["Table 3"].cells[-1], rows["Table 3"].status) == (None, "not run")
