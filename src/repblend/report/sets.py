"""How much of a result depends on the draw of its set, and how much on that of its students.

Sets of one method and budget differ in their seeds (`grid.seeds`): initial pairs, the order of experts, mini-batches,
blends and noise; of coresets whatever they draw. Students of a set differ in their initial heads and mini-batches, and
are the same seeds for every set. This project's definition: with M sets, whose means over n students are m_1 .. m_M and
whose deviations over students are s_1 .. s_M,

- the mean is that of the m_i, their sample standard deviation that between sets: it has the students' share in it;
- the deviation between students is the root of the mean of the s_i^2;
- the 95 % interval is that of Student's t with M - 1 degrees of freedom around the mean: a set with its students is one
  draw. It is exact where means are normal, whatever part of their spread is the students'.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from repblend.report.grid_records import GridRecords
from repblend.report.table import Column, Derived, Table, TableRow, columns
from repblend.titles import title

PROTOCOL = "held-out"
LEVEL = 0.95


@dataclass(frozen=True)
class OverSets:
    """What several sets of the same settings reach, in the unit of their numbers."""

    mean: float
    between_sets: float
    """Sample standard deviation of the sets' means."""
    between_students: float
    """Root mean square of the deviations over the students of a set."""
    half_width: float
    """Of the 95 % interval around the mean."""

    @classmethod
    def of(cls, means: Sequence[float], deviations: Sequence[float]) -> "OverSets":
        """Sum sets up.

        Args:
            means: of each set over its students; two or more.
            deviations: of each set, sample standard deviations over its students.
        """
        between = statistics.stdev(means)
        factor = quantile_of_t((1 + LEVEL) / 2, len(means) - 1)
        return cls(statistics.fmean(means), between, math.sqrt(statistics.fmean(each**2 for each in deviations)),
                   factor * between / math.sqrt(len(means)))


def quantile_of_t(level: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution."""
    from scipy.special import stdtrit  # slow to import, and only needed where there are several sets

    return float(stdtrit(degrees, level))


def sets_table(records: GridRecords) -> Table:
    """Return the mean recall of every method over its sets; raises as `GridRecords.evaluation`."""
    rows = [_row(records, method, budget) for budget in records.grid.seed_budgets for method in records.trained]
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
        return TableRow((budget, title(method), f"{len(found)} of {len(names)}", *[None] * 5), None)
    over = OverSets.of([number.mean for number in found], [number.std or 0.0 for number in found])
    numbers = (over.mean, over.between_sets, over.between_students, over.mean - over.half_width,
               over.mean + over.half_width)
    return TableRow((budget, title(method), len(found), *(Derived(number, "{:.1f}") for number in numbers)),
                    records.result_file(names[0]))
