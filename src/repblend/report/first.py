"""What the first screen of RepBlend's report shows: pairs, and recall by budget, besides the claims.

Nothing here imports matplotlib.
"""

from collections.abc import Iterator

from repblend.grid import ENCODER_STUDENTS
from repblend.report.grid_records import CHANCE, PROTOCOLS, GridRecords
from repblend.report.screen import Level, Panel, Picture, Plot, Point, Series
from repblend.report.table import Number
from repblend.titles import STUDENTS, colour, full_title, title

# Pairs before and after distillation.

PAIR_WORDS = ("real", "distilled", "difference")
"""What the pictures of a pair are."""


def pictured(records: GridRecords) -> list[Picture]:
    """Return some pairs of the largest set of the grid's first method: real image, distilled one, nearest captions.

    Raises:
        ValueError: as `GridRecords.distillation` and `GridRecords.picture`.
    """
    name = pictured_set(records)
    found = records.distillation(name) if name else None
    return [Picture(
        None if pair.initial_png is None else records.picture(name, pair.initial_png).read_bytes(),
        records.picture(name, pair.distilled_png).read_bytes(), f"pair {pair.index}",
        (("Real caption", ["not known: imported" if pair.initial_caption is None else pair.initial_caption]),
         ("Nearest to the distilled text", [f"{each.cosine:.2f} {each.caption}" for each in pair.nearest_captions])))
        for pair in (found.specimens if name and found else ())]


def pictured_set(records: GridRecords) -> str | None:
    """Return the cell whose pairs are shown."""
    methods = (*records.grid.distilled, *records.learned)
    return f"{methods[0]}-{max(records.grid.budgets)}" if methods else None


# Mean recall of every method by budget, between chance and the full training set.

PANEL_TITLES = {"held-out": "Held-out: epoch chosen on validation", "faithful": "Faithful: epoch selected on test"}


def recall_plot(records: GridRecords) -> Plot:
    """Return what every method reaches at every budget, by both protocols; raises as `GridRecords.evaluation`."""
    return Plot("mean-recall", "Mean of the six recalls (%)", "pairs", tuple(sorted(records.grid.budgets)), tuple(
        Panel(PANEL_TITLES[protocol], tuple(_series(records, protocol)), tuple(_levels(records, protocol)))
        for protocol in PROTOCOLS))


def _series(records: GridRecords, protocol: str) -> Iterator[Series]:
    for method in records.trained:
        cells = {budget: f"{method}-{budget}" for budget in sorted(records.grid.budgets)}
        points = tuple(Point(budget, number, records.file("evaluate", name)) for budget, name in cells.items()
                       if (number := records.recall(name, protocol)))
        beside = method.endswith(ENCODER_STUDENTS)
        if points:
            yield Series(full_title(method), colour(method), points, beside)


def _levels(records: GridRecords, protocol: str) -> Iterator[Level]:
    for name in records.full_data:
        if number := records.recall(name, protocol):
            kind = f" ({STUDENTS[records.trains_encoder(name)]})" if len(records.full_data) > 1 else ""
            yield Level(f"{title(name)}{kind}", number, records.file("evaluate", name))
    if chance := records.chance():
        yield Level(title(CHANCE), Number(chance.expected.mean_recall, None, "expected.mean_recall"),
                    records.file("evaluate", CHANCE), dotted=True)
