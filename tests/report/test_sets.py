"""The table over sets of several seeds: its numbers against closed forms and draws; missing sets."""

import math
from pathlib import Path

import numpy as np
import pytest

from repblend.report.grid_records import GridRecords
from repblend.report.sets import OverSets, quantile_of_t, sets_table
from repblend.report.table import Derived
from tests.report.synthetic import GRID, path_of, read


def test_two_sets_have_the_interval_of_the_closed_form() -> None:
    found = OverSets.of([20.0, 24.0], [3.0, 4.0])
    assert found.mean == 22.0 and found.between_sets == pytest.approx(math.sqrt(8))
    assert found.between_students == pytest.approx(math.sqrt(12.5))
    # With one degree of freedom t is Cauchy's distribution: the quantile is tan(pi (p - 1/2)).
    assert found.half_width == pytest.approx(math.tan(math.pi * 0.475) * 2.0)


def test_quantiles_are_those_of_the_printed_tables() -> None:
    for degrees, printed in ((2, 4.303), (4, 2.776), (30, 2.042)):
        assert quantile_of_t(0.975, degrees) == pytest.approx(printed, abs=5e-4)


@pytest.mark.parametrize("share_of_sets", [0.0, 0.5, 0.95])
def test_nineteen_of_twenty_intervals_hold_the_mean_whosever_the_spread_is(share_of_sets: float) -> None:
    draw, trials, sets, students = np.random.default_rng(11), 4000, 3, 5
    of_sets = draw.normal(scale=math.sqrt(share_of_sets), size=(trials, sets, 1))
    values = of_sets + draw.normal(scale=math.sqrt(1 - share_of_sets), size=(trials, sets, students))
    held = 0
    for trial in values:
        found = OverSets.of(trial.mean(axis=1).tolist(), trial.std(axis=1, ddof=1).tolist())
        held += abs(found.mean) <= found.half_width
    standard_error = math.sqrt(0.95 * 0.05 / trials)
    assert abs(held / trials - 0.95) < 4 * standard_error


def test_the_table_has_every_method_over_its_sets(workspace: Path) -> None:
    records = GridRecords.of(workspace)
    table = sets_table(records)
    assert [row.cells[0] for row in table.rows] == GRID.seed_budgets * len(records.trained)
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
