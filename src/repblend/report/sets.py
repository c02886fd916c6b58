"""How much of a result depends on the draw of its set, and how much on that of its students.

Sets of one method and budget differ in their seeds (`grid.seeds`): initial pairs, the order of experts, mini-batches,
blends and noise; of coresets whatever they draw. Students of a set differ in their initial heads and mini-batches, and
are the same seeds for every set. The statistics are those of `intervals`.
"""

from collections.abc import Sequence

from repblend.report.grid_records import GridRecords
from repblend.report.intervals import OverSets, SetResult
from repblend.report.table import CellValue, Column, Derived, Table, TableRow, columns
from repblend.titles import full_title

PROTOCOL = "held-out"
COLUMNS = (Column("sets", "Sets"), Column("mean", "Mean"), Column("between_sets", "Between sets"),
           Column("between_students", "Between students"), Column("low", "95 % from"), Column("high", "to"))
"""Of what several sets reach: what `summed_up` returns."""
WORDS = ("Between sets: sample standard deviation of the sets' means, each over its students. Between students: root "
         "mean square of the deviations within a set. Interval: of the mean, by Student's t with a set as one draw.")
"""What they say."""


def sets_table(records: GridRecords) -> Table:
    """Return the mean recall of every method over its sets; raises as `GridRecords.evaluation`."""
    grid = records.grid
    rows = [_row(records, method, budget) for budgets, methods in (
        (grid.seed_budgets, records.trained), (grid.regime_seed_budgets, grid.regimes))
        for budget in budgets for method in methods]
    return Table("sets", "Held-out mean of the six recalls in percent over sets that differ in their seed alone. "
                 f"{WORDS}", (*columns("pairs", "method"), *COLUMNS), tuple(rows))


def _row(records: GridRecords, method: str, budget: int) -> TableRow:
    names = records.sets(method, budget)
    found = [number for name in names if (number := records.recall(name, PROTOCOL))]
    values = summed_up([SetResult(number.mean, number.std or 0.0) for number in found], len(names))
    return TableRow((budget, full_title(method), *values),
                    records.result_file(names[0]) if len(found) == len(names) else None)


def summed_up(found: Sequence[SetResult], wanted: int) -> tuple[CellValue, ...]:
    """Return how many sets there are and what they reach; nothing but how many until all that are wanted are there."""
    if len(found) < wanted:
        return f"{len(found)} of {wanted}", *[None] * (len(COLUMNS) - 1)
    over = OverSets.of(found)
    numbers = (over.mean, over.between_sets, over.between_students, over.mean - over.half_width,
               over.mean + over.half_width)
    return len(found), *(Derived(number, "{:.1f}") for number in numbers)
