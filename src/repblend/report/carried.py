"""What carries a distilled set: which part of its gain over random pairs is left where only some parts are learned.

Variants of RepBlend learn texts alone, pixels alone, and so on (`learned` in `params.yaml`); all else stays the random
pairs that every set starts from. The share of the gain is this project's definition,

    share = (recall of the variant - recall of random pairs) / (recall of RepBlend - recall of random pairs)

Students on random pairs have rates that were tuned on validation for them; a set whose rates are not learned leaves its
students those that distillation starts with.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from repblend.report.drawing import QUIET, WIDTH, canvas, save, say_not_run
from repblend.report.grid_records import GridRecords
from repblend.report.results import SPREAD
from repblend.report.table import CellValue, Column, Derived, Number, Table, TableRow, columns
from repblend.titles import colour, marker, title

FAMILY = "learned"
"""Its name among the grid's variants."""
NOTHING, WHOLE = "random", "repblend"
"""Where nothing is learned, and where everything is."""
PART_TITLES = {"images": "pixels", "texts": "texts", "similarity": "similarity", "rates": "rates"}
ROW_HEIGHT = 0.34


class CarriedSet(NamedTuple):
    """A set, and what of it was learned."""

    method: str
    cell: str
    learned: str


def carried_sets(records: GridRecords) -> Iterator[CarriedSet]:
    """Yield random pairs, every variant, and RepBlend as it is; raises as `GridRecords.distillation`."""
    budget = records.grid.variants_budget
    yield CarriedSet(NOTHING, f"{NOTHING}-{budget}", "nothing: random pairs")
    for name in records.grid.variants.get(FAMILY, ()):
        found = records.distillation(f"{name}-{budget}")
        parts = found.provenance.parameters.get("distill", {}).get("learned", []) if found else []
        yield CarriedSet(name, f"{name}-{budget}", ", ".join(PART_TITLES[part] for part in parts)
                         or name.partition("+")[2].replace("-", " "))
    yield CarriedSet(WHOLE, f"{WHOLE}-{budget}", f"everything: {title(WHOLE)}")


def share_of_gain(number: Number | None, nothing: Number | None, whole: Number | None) -> Derived | None:
    """Return which share of the gain of the whole over nothing a recall is; None where that has no meaning."""
    if number is None or nothing is None or whole is None or whole.mean <= nothing.mean:
        return None
    return Derived(100 * (number.mean - nothing.mean) / (whole.mean - nothing.mean), "{:.0f} %")


def carried_table(records: GridRecords) -> Table:
    """Return recall, and share of the gain, by what is learned; raises as `GridRecords.evaluation`."""
    budget = records.grid.variants_budget
    nothing, whole = (records.recall(f"{method}-{budget}", "held-out") for method in (NOTHING, WHOLE))
    rows = []
    for each in carried_sets(records):
        number = records.recall(each.cell, "held-out")
        share: CellValue = share_of_gain(number, nothing, whole)
        rows.append(TableRow((each.learned, number, "–" if number and share is None else share),
                             records.file("evaluate", each.cell) if number else None))
    return Table("carried", f"What carries a set: {title(WHOLE)}, {budget} pairs, with only some parts learned. Mean "
                 f"of the six recalls in percent, held-out ({SPREAD}), and the share of the gain over random pairs "
                 "(this project's definition)",
                 (*columns("learned"), Column("mean_recall", "Mean", spread=True),
                  Column("share_of_gain", "Share of the gain")), tuple(rows))


def carried(records: GridRecords, folder: Path) -> None:
    """A bar per set, from the recall of random pairs on; a point per student, whiskers of one standard deviation."""
    sets = [*carried_sets(records)]
    found = [records.evaluation(each.cell) for each in sets]
    nothing, whole = (records.recall(sets[place].cell, "held-out") for place in (0, -1))
    with canvas(1, 1, 0.8 * WIDTH, 1.1 + ROW_HEIGHT * len(sets)) as (figure, (panel,)):
        panel.grid(axis="x")
        panel.grid(visible=False, axis="y")
        for number in (nothing, whole):
            if number:
                panel.axvline(number.mean, color=QUIET, linewidth=1, linestyle="--")
        start = nothing.mean if nothing else 0.0
        for place, (each, evaluation) in enumerate(zip(sets, found, strict=True)):
            if evaluation is None:
                panel.text(start, place, " not run", va="center", fontsize=7.5, color=QUIET, style="italic")
                continue
            statistics = evaluation.protocols.held_out
            mean, std = statistics.mean.mean_recall, statistics.std.mean_recall
            values = [seed.mean_recall for seed in statistics.seeds]
            panel.barh(place, mean - start, height=0.62, left=start, color=colour(each.method), linewidth=0,
                       alpha=1.0 if each.method == WHOLE else 0.45)
            panel.errorbar(mean, place, xerr=std, color="black", linewidth=1, capsize=2.5)
            panel.plot(values, [place] * len(values), marker(each.method), markersize=3, color="white", linestyle="",
                       markeredgecolor="black", markeredgewidth=0.6)
            share = share_of_gain(Number(mean, std, ""), nothing, whole)
            panel.annotate(f"{mean:.1f}" + (f" ({share})" if share and each.method not in (NOTHING, WHOLE) else ""),
                           (max(mean + std, *values), place), xytext=(4, 0), textcoords="offset points", va="center",
                           fontsize=7.5)
        if not any(found):
            say_not_run(panel)
        panel.margins(x=0.14)
        panel.set_yticks(range(len(sets)), [each.learned for each in sets])
        panel.set_ylim(len(sets) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.set_xlabel("mean of the six recalls, held-out (%)")
        panel.set_ylabel("what is learned")
        save(figure, folder, "carried")
