"""Sets distilled with other pairs of encoders, ours in the form of the paper's Figures 6 and 7, whose values are
unknown; and those with larger image encoders in the form of its Table 3.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from repblend.report.drawing import WIDTH, canvas, draw_groups, method_legend, save
from repblend.report.grid_records import EXPERTS_THEMSELVES, PROTOCOLS, GridRecords
from repblend.report.results import OF_EXPERTS, SPREAD, recall_columns
from repblend.report.studies import MEAN_FIRST, PROTOCOL_COLUMNS
from repblend.report.table import CellValue, Column, Table, TableRow, columns
from repblend.titles import title

PROTOCOL = "held-out"
PANEL_WIDTH = 2.4


class Row(NamedTuple):
    """A set, or the experts themselves, on one pair of encoders."""

    encoders: tuple[str | None, str | None]
    """Of images and of texts; None where nobody knows yet."""
    pairs: CellValue
    method: str
    name: str
    """Of its record, as `GridRecords.recall` takes it."""


def rows_of(records: GridRecords, pairs: list[str | None]) -> Iterator[Row]:
    """Yield every set that is distilled with these pairs of encoders, and what the experts of each reach.

    Args:
        pairs: names of the grid's; None for the pipeline's own encoders.
    """
    for pair in pairs:
        encoders = records.encoders(pair) or (None, None)
        for budget in records.grid.pair_budgets:
            for method in methods(records):
                yield Row(encoders, budget, method, f"{method}{_variant(pair)}-{budget}")
        own = EXPERTS_THEMSELVES if pair is None else f"{EXPERTS_THEMSELVES}@{pair}"
        yield Row(encoders, "all", EXPERTS_THEMSELVES, own)


def methods(records: GridRecords) -> tuple[str, ...]:
    """Return the methods that distill with every pair, in the order of the tables."""
    return (*records.grid.pair_encoder_distilled, *reversed(records.grid.pair_distilled))


def _variant(pair: str | None) -> str:
    return "" if pair is None else f"+{pair}"


ENCODER_COLUMNS = (Column("image_encoder", "Image encoder"), Column("text_encoder", "Text encoder"))


def pairs_table(records: GridRecords) -> Table:
    """Return the mean recall of every set on its own pair of encoders; raises as `GridRecords.evaluation`."""
    rows = []
    for row in rows_of(records, [None, *records.grid.encoder_pairs]):
        numbers = [records.recall(row.name, protocol) for protocol in PROTOCOLS]
        rows.append(TableRow((*row.encoders, row.pairs, title(row.method), *numbers),
                             records.result_file(row.name) if all(numbers) else None))
    return Table("encoder-pairs", "Ours in the form of the paper's Figures 6 and 7, whose values are unknown: mean of "
                 "the six recalls in percent, each set distilled, and its students trained, with the pair of encoders "
                 f"of its row ({SPREAD}; {OF_EXPERTS})",
                 (*ENCODER_COLUMNS, *columns("pairs", "method"), *PROTOCOL_COLUMNS), tuple(rows))


def larger_table(records: GridRecords) -> Table:
    """Return every recall on the pipeline's encoders and on pairs with a larger image encoder; raises as above."""
    rows = []
    for row in rows_of(records, [None, *records.grid.larger_pairs]):
        numbers = [records.recall(row.name, PROTOCOL, name) for name in MEAN_FIRST]
        rows.append(TableRow((*row.encoders, row.pairs, title(row.method), *numbers),
                             records.result_file(row.name) if all(numbers) else None))
    return Table("larger-encoders", "Ours in the form of the paper's Table 3: recall in percent of sets distilled with "
                 "the encoders of this run, and with larger image encoders, the students' epoch chosen on validation "
                 f"({SPREAD}; {OF_EXPERTS})",
                 (*ENCODER_COLUMNS, *columns("pairs", "method"), *recall_columns(MEAN_FIRST, spread=True)), tuple(rows))


def encoder_pairs(records: GridRecords, folder: Path) -> None:
    """Bars of the held-out mean recall, a panel per pair of encoders, a group per budget."""
    pairs: list[str | None] = [None, *records.grid.encoder_pairs]
    with canvas(1, len(pairs), max(WIDTH, PANEL_WIDTH * len(pairs)), 3.8, sharey=True) as (figure, panels):
        for panel, pair in zip(panels, pairs, strict=True):
            draw_groups(panel, records, PROTOCOL, methods(records), records.grid.pair_budgets, _variant(pair))
            panel.set_title("\n".join(records.encoders(pair) or ("the encoders", "of this run")), fontsize=8)
        panels[0].set_ylabel("mean of the six recalls,\nheld-out (%)")
        figure.legend(handles=method_legend({method: title(method) for method in methods(records)}),
                      loc="outside lower center", ncols=3)
        save(figure, folder, "encoder-pairs")
