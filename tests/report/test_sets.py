"""The table over sets of several seeds: its rows are those of the grid; missing sets."""

from pathlib import Path

import numpy as np
import pytest

from repblend.report.grid_records import GridRecords
from repblend.report.sets import sets_table
from repblend.report.table import Derived
from repblend.titles import full_title
from tests.report.synthetic import GRID, path_of, read


def test_the_table_has_every_method_over_its_sets(workspace: Path) -> None:
    records = GridRecords.of(workspace)
    table = sets_table(records)
    assert [row.cells[:2] for row in table.rows] == [(50, full_title(method)) for method in (
        *records.trained, *GRID.regimes)] and GRID.seed_budgets == GRID.regime_seed_budgets == [50]
    assert len({row.cells[1] for row in table.rows}) == len(table.rows)
    row = next(row for row in table.rows if row.cells[1] == "RepBlend")
    names = ["repblend-50", "repblend+seed-1-50", "repblend+seed-2-50"]
    means = [read(workspace, f"evaluate/{name}")["protocols"]["held-out"]["mean"]["mean_recall"] for name in names]
    assert row.cells[2] == 3 and isinstance(row.cells[3], Derived)
    assert row.cells[3].value == pytest.approx(np.mean(means))
    assert row.file == "records/evaluate/repblend-50/record.json"


def test_methods_and_regimes_have_further_sets_and_variants_have_none(workspace: Path) -> None:
    records = GridRecords.of(workspace)
    for method, further in (("repblend", 2), ("random+encoder-students", 2), ("repblend+published", 2),
                            (GRID.all_variants[0], 0)):
        assert len(records.sets(method, 50)) == 1 + further, method


def test_a_missing_set_leaves_its_row_open(workspace: Path) -> None:
    path_of(workspace, "evaluate/lors+seed-2-50").unlink()
    row = next(row for row in sets_table(GridRecords.of(workspace)).rows if row.cells[1] == "LoRS")
    assert row.cells[2:] == ("2 of 3", None, None, None, None, None) and row.status == "not run"
