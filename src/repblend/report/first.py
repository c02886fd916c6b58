"""What the first screen of RepBlend's report shows: the paper's orderings, pairs, and recall by budget.

Nothing here imports matplotlib.
"""

from collections.abc import Iterator

from repblend.grid import ENCODER_STUDENTS
from repblend.report.grid_records import CHANCE, PROTOCOLS, GridRecords
from repblend.report.screen import Claim, Level, Panel, Picture, Plot, Point, Series, Trial, compare
from repblend.report.table import Column, Number, Table, TableRow, columns
from repblend.titles import STUDENTS, colour, title

# Which of the paper's orderings hold here: RepBlend over LoRS over TESLA-VL, and all over coresets (Tables 1 and 2);
# RepBlend over RepBlend without either of its parts (Figure 5).

CHAIN = {("repblend", "lors"): "RepBlend over LoRS", ("lors", "tesla-vl"): "LoRS over TESLA-VL",
         ("repblend", "repblend-without-blending"): "RepBlend over itself without blending (RB)",
         ("repblend", "repblend-without-matching"): "RepBlend over itself without symmetric matching (SM)"}
"""Each method should lead the other."""
OVER_CORESETS = ("repblend", "lors", "tesla-vl")
"""Each should lead the best coreset that its kind of students was trained on."""
BEST = "the best coreset"
RULE = ("Held-out mean recall in percent, each method with students of its own kind. An ordering holds, or does not, "
        "where the means differ by one standard deviation of students or more; as a whole it holds where every "
        "comparison does. A cell is a set with its students.")


def claims(records: GridRecords) -> list[Claim]:
    """Return every ordering that the paper reports, with its comparisons; raises as `GridRecords.evaluation`."""
    pairs: dict[tuple[str, str | None], str] = {**CHAIN}
    pairs |= {(method, None): f"{title(method)} over {BEST}" for method in OVER_CORESETS}
    return [Claim(words, tuple(_trial(records, budget, first, second) for budget in records.grid.budgets))
            for (first, second), words in pairs.items()]


def _trial(records: GridRecords, budget: int, first: str, second: str | None) -> Trial:
    """Compare two methods, or, without a second one, a method with the best coreset of its students."""
    against = second or _best_coreset(records, first, budget)
    numbers = [records.recall(f"{method}-{budget}", "held-out") if method else None for method in (first, against)]
    return compare(f"{budget} pairs", title(against) if against else BEST, *numbers,
                   records.file("evaluate", f"{first}-{budget}"))


def _best_coreset(records: GridRecords, method: str, budget: int) -> str | None:
    beside = ENCODER_STUDENTS if records.trains_encoder(method) else ""
    names = [f"{coreset}{beside}" for coreset in (records.grid.encoder_coresets if beside else records.grid.coresets)]
    found = {name: number.mean for name in names if (number := records.recall(f"{name}-{budget}", "held-out"))}
    return max(found, key=lambda name: found[name]) if found else None


def orderings_table(records: GridRecords) -> Table:
    """Return every comparison behind the orderings, with its verdict; raises as `GridRecords.evaluation`."""
    rows = [TableRow((claim.words, trial.where, trial.against, trial.first, trial.second, trial.difference,
                      trial.verdict if trial.run else None), trial.file if trial.run else None)
            for claim in claims(records) for trial in claim.trials]
    return Table("orderings", f"Every comparison behind the orderings. {RULE}",
                 (*columns("ordering"), Column("budget", "Budget"), Column("against", "Against"),
                  Column("first", "First", spread=True), Column("second", "Second", spread=True),
                  Column("difference_in_std", "Difference"), *columns("verdict")), tuple(rows))


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
            yield Series(f"{title(method)} (encoder students)" if beside else title(method), colour(method), points,
                         beside)


def _levels(records: GridRecords, protocol: str) -> Iterator[Level]:
    for name in records.full_data:
        if number := records.recall(name, protocol):
            kind = f" ({STUDENTS[records.trains_encoder(name)]})" if len(records.full_data) > 1 else ""
            yield Level(f"{title(name)}{kind}", number, records.file("evaluate", name))
    if chance := records.chance():
        yield Level(title(CHANCE), Number(chance.expected.mean_recall, None, "expected.mean_recall"),
                    records.file("evaluate", CHANCE), dotted=True)
