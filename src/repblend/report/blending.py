"""What blending (RB) does at this scale: both arms, in this project's settings and in the paper's, by recall and by the
measures of collapse, and what the released code itself gave on this data.

Whether it helps is said from the numbers alone, by the rule of the claims (`verdicts`).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from repblend.report.evidence import Evidence
from repblend.report.grid_records import GridRecords
from repblend.report.published import PublishedRow, read_published
from repblend.report.results import SPREAD
from repblend.report.studies import MEASURE_TITLES
from repblend.report.table import CellValue, Column, Derived, Number, Published, Table, TableRow, columns
from repblend.report.verdicts import FAILS, HOLDS, UNDECIDED, Trial, trial
from repblend.titles import EMBEDDED, title

WITHOUT, WITH = "repblend-without-blending", "repblend"
OWN = "this project's"
RELEASED_CODE = "released-code"
"""Its file in `paper/published`."""
COLLAPSE = ("intra_modal_similarity_img", "intra_modal_similarity_txt", "concentration_ratio_img",
            "concentration_ratio_txt", "modality_gap")
"""Measures that collapse raises."""


class Arms(NamedTuple):
    """A set that was distilled with blending, and one without, all else equal."""

    regime: str
    budget: int
    without: str
    """Cell."""
    blended: str


def arms(records: GridRecords) -> list[Arms]:
    """Return every regime and budget that has both arms: the method's own settings, then the grid's regimes."""
    grid = records.grid
    if not {WITHOUT, WITH} <= set(grid.distilled):
        return []
    names = dict.fromkeys(name.partition("+")[2] for name in grid.regimes)
    regimes = [name for name in names if {f"{WITHOUT}+{name}", f"{WITH}+{name}"} <= set(grid.regimes)]
    own = [budget for budget in grid.budgets if not regimes or budget in grid.regime_budgets]
    return [*(Arms(OWN, budget, f"{WITHOUT}-{budget}", f"{WITH}-{budget}") for budget in own),
            *(Arms(regime, budget, f"{WITHOUT}+{regime}-{budget}", f"{WITH}+{regime}-{budget}")
              for regime in regimes for budget in grid.regime_budgets)]


def trials(records: GridRecords) -> list[Trial]:
    """Return blending against none, by held-out recall over all sets of each arm, of every regime and budget; raises as
    `GridRecords.evaluation`.
    """
    evidence = Evidence(records)
    return [trial(f"{each.regime}, {each.budget} pairs", title(WITHOUT), *(
        evidence.sets("evaluate", cell, lambda name: evidence.recall(name, "mean_recall"))
        for cell in (each.blended, each.without))) for each in arms(records)]


def blending_table(records: GridRecords) -> Table:
    """Return both arms of every regime and budget with what blending changes, and what the released code gave."""
    rows: list[TableRow] = []
    for each in arms(records):
        found = {cell: (records.recall(cell, "held-out"), *(records.last_measure(cell, name) for name in COLLAPSE))
                 for cell in (each.without, each.blended)}
        for cell, arm in ((each.without, "without"), (each.blended, "with")):
            run = any(found[cell])
            recall, *measures = found[cell]  # a row's numbers lead to one record: measures stand in another
            shown = (Derived(measure.mean, "{:.3f}") if measure else None for measure in measures)
            rows.append(TableRow((each.regime, each.budget, arm, recall, *shown),
                                 records.file("evaluate" if found[cell][0] else "distill", cell) if run else None))
        changes = [_change(*pair) for pair in zip(found[each.blended], found[each.without], strict=True)]
        rows.append(TableRow((each.regime, each.budget, "what blending changes", *changes),
                             records.file("evaluate", each.blended) if any(changes) else None))
    rows += [TableRow((f"released code, {row['seed']} seed, iteration {row['iteration'] or 'not stated'}",
                       row["budget"], "with" if row["method"] == WITH else "without", row.number("mean", "std"),
                       *("–",) * len(COLLAPSE)), row.origin, whose="released code")
             for row in released_rows(records)]
    return Table("blending", "Blending, all else equal, in two regimes: mean of the six recalls in percent, held-out "
                 f"({SPREAD}), and measures of collapse after the last iteration, in the embedding of one expert (this "
                 "project's definitions, no unit). Below: the released code, " + SOURCE,
                 (Column("regime", "Settings"), *columns("pairs", "blending"),
                  Column("mean_recall", "Mean", spread=True),
                  *(Column(name, MEASURE_TITLES[name]) for name in COLLAPSE)), tuple(rows))


SOURCE = "measured by running the released code on this data"
"""What the file of the released code's results says of every row."""


def _change(blended: Number | None, without: Number | None) -> CellValue:
    if blended is None or without is None:
        return None
    return Derived(blended.mean - without.mean, "{:+." + str(blended.digits) + "f}")


def released_rows(records: GridRecords) -> list[PublishedRow]:
    """Return what the released code gave on this workspace's data; none on another data set.

    Raises:
        ValueError: as `read_published` and `GridRecords.dataset`.
    """
    dataset = records.dataset() or EMBEDDED
    return [row for row in read_published(records.repository, RELEASED_CODE) if row["dataset"] == dataset]


class Lowered(NamedTuple):
    """How often a measure of collapse is lower with blending, and by how much."""

    title: str
    times: int
    of: int
    least: float
    most: float
    """Smallest and largest change, blended minus without."""


def lowered(records: GridRecords) -> Iterator[Lowered]:
    """Yield what blending did to every measure of collapse; raises as `GridRecords.distillation`."""
    for name in COLLAPSE:
        changes = [change.value for each in arms(records) if isinstance(change := _change(
            records.last_measure(each.blended, name), records.last_measure(each.without, name)), Derived)]
        if changes:
            yield Lowered(MEASURE_TITLES[name].lower(), sum(change < 0 for change in changes), len(changes),
                          min(changes), max(changes))


def blending_words(records: GridRecords) -> dict[str, Any]:
    """Return what the passage on blending says, all of it from the numbers; raises as `blending_table`."""
    run = [each for each in trials(records) if each.run]
    counts = {verdict: sum(each.verdict == verdict for each in run) for verdict in (HOLDS, FAILS, UNDECIDED)}
    released: dict[tuple[Any, Any, Any], dict[str, Published]] = {}
    for row in released_rows(records):
        both = released.setdefault((row["budget"], row["iteration"], row["seed"]), {})
        both[row["method"]] = row.number("mean", "std")
    return {"num": len(run), "helps": counts[HOLDS], "hurts": counts[FAILS], "undecided": counts[UNDECIDED],
            "lowered": [*lowered(records)], "source": SOURCE,
            "no_interval": sum(each.interval is None for each in run),
            "released": [(budget, iteration, seed, str(both[WITH]), str(both[WITHOUT]))
                         for (budget, iteration, seed), both in released.items() if {WITH, WITHOUT} <= both.keys()]}
