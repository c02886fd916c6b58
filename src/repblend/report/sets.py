"""How much of a result depends on the draw of its set, and how much on that of its students.

Sets of one method and budget differ in their seeds (`grid.seeds`): initial pairs, the order of experts, mini-batches,
blends and noise; of coresets whatever they draw. Students of a set differ in their initial heads and mini-batches, and
are the same seeds for every set. The statistics are those of `intervals`.
"""

from repblend.report.grid_records import GridRecords
from repblend.report.intervals import OverSets, SetResult
from repblend.report.table import Column, Derived, Table, TableRow, columns
from repblend.titles import full_title

PROTOCOL = "held-out"


def sets_table(records: GridRecords) -> Table:
    """Return the mean recall of every method over its sets; raises as `GridRecords.evaluation`."""
    grid = records.grid
    rows = [_row(records, method, budget) for budgets, methods in (
        (grid.seed_budgets, records.trained), (grid.regime_seed_budgets, grid.regimes))
        for budget in budgets for method in methods]
    return Table("sets", "Held-out mean of the six recalls in percent over sets that differ in their seed alone. "
                 "Between sets: sample standard deviation of the sets' means, each over its students. Between "
                 "students: root mean square of the deviations within a set. Interval: of the mean, by "
                 "Student's t with a set as one draw.",
                 (*columns("pairs", "method"), Column("sets", "Sets"), Column("mean", "Mean"),
                  Column("between_sets", "Between sets"), Column("between_students", "Between students"),
                  Column("low", "95 % from"), Column("high", "to")), tuple(rows))


def _row(records: GridRecords, method: str, budget: int) -> TableRow:
    names = records.sets(method, budget)
    found = [number for name in names if (number := records.recall(name, PROTOCOL))]
    if len(found) < len(names):
        return TableRow((budget, full_title(method), f"{len(found)} of {len(names)}", *[None] * 5), None)
    over = OverSets.of([SetResult(number.mean, number.std or 0.0) for number in found])
    numbers = (over.mean, over.between_sets, over.between_students, over.mean - over.half_width,
               over.mean + over.half_width)
    return TableRow((budget, full_title(method), len(found), *(Derived(number, "{:.1f}") for number in numbers)),
                    records.result_file(names[0]))
