"""The paper's Tables 1 and 2 beside ours, and the difference in standard deviations.

Ours is there only where the pipeline ran on that very data set; it is counted as the paper counts, by the faithful
protocol. The difference is this project's definition: (ours - published) / sqrt(std_ours^2 + std_published^2).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from repblend.report.deviations import difference_in_deviations
from repblend.report.metrics import ENCODER_STUDENTS, RECALLS, Metrics
from repblend.report.published import FOLDER, Entry, read_published
from repblend.report.table import Cell, Column, Derived, Number, Published, Row, Table, stored_number
from repblend.report.titles import RECALL_TITLES, title
from repblend.store import JSON

TITLES = {"flickr30k": "The paper's Table 1 (Flickr30K)", "coco": "The paper's Table 2 (COCO)"}
"""Data set -> what its table is called."""
SIX = tuple(name for name in RECALLS if name != "mean_recall")
PROTOCOL = "faithful"
NO_DIFFERENCE = "–"


@dataclass(frozen=True)
class Pair:
    """One recall of the paper and of ours."""

    published: Published
    ours: Number | None

    @property
    def difference(self) -> Derived | None:
        """Ours minus the paper's, in standard deviations; None unless both have one and they are not both zero."""
        return difference_in_deviations(self.ours, self.published)


@dataclass(frozen=True)
class Line:
    """The six recalls of a method at a budget."""

    budget: int | str
    method: str
    pairs: tuple[Pair, ...]
    file: str | None
    """The metrics file of ours, if it was run on this data set."""


def comparison_table(metrics: Metrics, dataset: str) -> Table:
    """Return, per budget and method, the published recalls, ours and the difference; in the CSV a row per recall.

    Args:
        dataset: `flickr30k` or `coco`.

    Raises:
        ValueError: as `read_published` and `Metrics.evaluation`.
    """
    lines = [*_lines(metrics, dataset)]
    caption = (f"{TITLES[dataset]}: recall in percent. Published: mean (standard deviation), with NFNet and BERT. "
               f"Ours: {_setting(metrics, lines)}. Difference: (ours - published) / sqrt(both variances added), this "
               "project's definition")
    columns = (Column("pairs", "Pairs"), Column("method", "Method"), Column("from", "From"),
               *(Column(name, RECALL_TITLES[name]) for name in SIX))
    return Table(f"published-{dataset}", caption, columns, tuple(row for line in lines for row in _rows(line)),
                 _long(dataset, caption, lines))


def _setting(metrics: Metrics, lines: list[Line]) -> str:
    """How ours was measured: with other encoders a difference is no failure to reproduce."""
    encode = metrics.encoders() if any(line.file for line in lines) else None
    if not encode:
        return "only if this data set was run"
    return (f"mean ± standard deviation by the faithful protocol, with {encode['image_encoder']} and "
            f"{encode['text_encoder']}")


def _lines(metrics: Metrics, dataset: str) -> Iterator[Line]:
    entries: dict[tuple[int | str, str], dict[str, Entry]] = {}
    for entry in read_published(metrics.repository, dataset):
        entries.setdefault((entry["budget"], entry["method"]), {})[entry["recall"]] = entry
    was_run = metrics.is_of(dataset)
    for (budget, method), recalls in entries.items():
        name = _our_name(metrics, method, budget)
        found = metrics.evaluation(name) if was_run else None
        if missing := set(SIX) - set(recalls):
            raise ValueError(f"{metrics.repository / FOLDER / dataset}.csv: {method} at budget {budget} lacks "
                             f"{', '.join(sorted(missing))}. Restore it with `git restore {FOLDER}`")
        pairs = tuple(Pair(recalls[recall].number("mean", "std"), _ours(found, recall)) for recall in SIX)
        yield Line(budget, method, pairs, metrics.file("evaluate", name) if found else None)


def _our_name(metrics: Metrics, method: str, budget: int | str) -> str:
    """The cell of ours for a published row. The published students on coresets train the image encoder: ours as well,
    if such were asked for.
    """
    if budget == "full":
        return method
    return f"{method}{ENCODER_STUDENTS}-{budget}" if method in metrics.grid.encoder_coresets else f"{method}-{budget}"


def _ours(found: JSON | None, recall: str) -> Number | None:
    return stored_number(found["protocols"][PROTOCOL], recall, f"protocols.{PROTOCOL}") if found else None


def _rows(line: Line) -> Iterator[Row]:
    """What the paper says, what we found, and the difference where there is one."""
    head = (line.budget, title(line.method))
    yield Row((*head, "published", *(pair.published for pair in line.pairs)), None)
    yield Row((*head, "ours", *(pair.ours for pair in line.pairs)), line.file)
    if any(pair.difference for pair in line.pairs):
        yield Row((*head, "difference", *(pair.difference or NO_DIFFERENCE for pair in line.pairs)), line.file)


def _long(dataset: str, caption: str, lines: list[Line]) -> Table:
    columns = (Column("pairs", "Pairs"), Column("method", "Method"), Column("recall", "Recall"),
               Column("published", "Published", spread=True), Column("evidence", "Evidence"),
               Column("published_in", "Published in"), Column("ours", "Ours", spread=True),
               Column("difference_in_std", "Difference"))
    rows = [Row((line.budget, title(line.method), recall, *_long_cells(pair)), line.file)
            for line in lines for recall, pair in zip(SIX, line.pairs, strict=True)]
    return Table(f"published-{dataset}", caption, columns, tuple(rows))


def _long_cells(pair: Pair) -> tuple[Cell, ...]:
    return (pair.published, pair.published.evidence, pair.published.origin, pair.ours, pair.difference)
