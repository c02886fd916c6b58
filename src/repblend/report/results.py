"""Tables of what was measured: results by protocol, every student, what a set stores, and where it stands.

Nothing here imports matplotlib: `repro run` prints the results.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from repblend.records.base import RECALLS
from repblend.report.grid_records import CHANCE, EXPERTS_THEMSELVES, FULL_DATA, PROTOCOLS, GridRecords, by_name
from repblend.report.table import (
    CellValue,
    Column,
    Number,
    Table,
    TableRow,
    columns,
    with_best,
)
from repblend.runtime.locked import left_out
from repblend.titles import RECALL_TITLES, STUDENTS, title

NOTHING: tuple[None, ...] = (None,) * len(RECALLS)
"""The recalls of a cell that was not run."""
CAPTIONS = {
    "held-out": "Held-out protocol: recall in percent on the test split, the students' epoch chosen on validation",
    "faithful": "Faithful protocol, selected on test: recall in percent on the test split, the best of the scored "
                "epochs on that same split, as published",
}
OF_EXPERTS = "of the experts' row over experts, at the end of their training"
SPREAD = "mean ± standard deviation over the evaluation seeds"


def recall_columns(names: Iterable[str], spread: bool = False) -> list[Column]:
    """Return a column per recall; `spread` where each has a deviation."""
    return [Column(name, RECALL_TITLES[name], spread) for name in names]


def results_table(records: GridRecords, protocol: str) -> Table:
    """Return the recalls of every cell of the grid by one protocol, with both bounds, and what the
    experts themselves reach.

    Args:
        protocol: `held-out` or `faithful`.

    Raises:
        ValueError: as `GridRecords.evaluation`.
    """
    rows = [row for budget in records.grid.budgets for row in with_best(
        [_result_row(records, budget, method, f"{method}-{budget}", protocol) for method in records.trained])]
    rows += [_result_row(records, pairs, method, name, protocol)
             for name, pairs, method in (*_full_data(records), _experts_themselves(records))]
    chance = records.chance()
    expected = _numbers(chance.expected, "expected") if chance else NOTHING
    rows.append(TableRow(("", title(CHANCE), "none", *expected), records.file("evaluate", CHANCE) if chance else None))
    return Table(f"results-{protocol}", f"{CAPTIONS[protocol]} ({SPREAD}; {OF_EXPERTS})",
                 (*columns("pairs", "method", "students"), *recall_columns(RECALLS, spread=True)), tuple(rows))


def _result_row(records: GridRecords, pairs: CellValue, method: str, name: str, protocol: str) -> TableRow:
    numbers = [records.recall(name, protocol, recall) for recall in RECALLS]
    return TableRow((pairs, title(method), STUDENTS[records.trains_encoder(method)], *numbers),
                    records.result_file(name) if all(numbers) else None)


def _numbers(recalls: Any, key: str) -> tuple[Number, ...]:
    """Recalls without deviations."""
    return tuple(Number(getattr(recalls, name), None, f"{key}.{name}") for name in RECALLS)


def seeds_table(records: GridRecords) -> Table:
    """Return what every single student reached, by both protocols, and at which epoch; raises as `results_table`."""
    rows = []
    for name, pairs, method in _named_rows(records):
        found, file = records.evaluation(name), records.file("evaluate", name)
        head = (pairs, title(method), STUDENTS[records.trains_encoder(method)])
        if not found:
            rows.append(TableRow((*head, None, None, None, *NOTHING), None))
            continue
        for protocol in PROTOCOLS:
            rows += [TableRow((*head, protocol, seed, reached.epoch,
                               *_numbers(reached, f"protocols.{protocol}.seeds.{seed}")), file)
                     for seed, reached in enumerate(by_name(found.protocols, protocol).seeds)]
    return Table("seeds", "Recall in percent of every student, and the epoch that the protocol chose for it",
                 (*columns("pairs", "method", "students", "protocol", "seed", "epoch"), *recall_columns(RECALLS)),
                 tuple(rows))


def _named_rows(records: GridRecords) -> Iterator[tuple[str, CellValue, str]]:
    """Name, pairs and method of every row that has students."""
    for budget in records.grid.budgets:
        for method in records.trained:
            yield f"{method}-{budget}", budget, method
    yield from _full_data(records)


def _full_data(records: GridRecords) -> Iterator[tuple[str, CellValue, str]]:
    for name in records.full_data:
        found = records.evaluation(name)
        yield name, found.num_pairs if found else "all", name


def _experts_themselves(records: GridRecords) -> tuple[str, CellValue, str]:
    full = records.evaluation(FULL_DATA)
    return EXPERTS_THEMSELVES, full.num_pairs if full else "all", EXPERTS_THEMSELVES


def storage_table(records: GridRecords) -> Table:
    """Return what each set stores: pairs, and bytes with its labels and learning rates; raises as `results_table`."""
    rows = []
    for budget in records.grid.budgets:
        for method in records.methods:
            found, file = records.evaluation(f"{method}-{budget}"), records.file("evaluate", f"{method}-{budget}")
            size = (found.num_pairs, found.stored_bytes) if found else (None, None)
            rows.append(TableRow((budget, title(method), *size), file if found else None))
    return Table("storage", "What each set stores. The parameters of a learned similarity count as one pair",
                 (*columns("budget", "method"), Column("num_pairs", "Pairs stored"),
                  Column("stored_bytes", "Bytes stored")), tuple(rows))


def origins_table(records: GridRecords) -> Table:
    """Return, for every row of the results, its record and the command that made it; raises as `results_table`."""
    rows = []
    for name in [*(name for name, _, _ in _named_rows(records)), EXPERTS_THEMSELVES, CHANCE]:
        found = (records.chance() if name == CHANCE else records.experts() if name == EXPERTS_THEMSELVES
                 else records.evaluation(name))
        file = records.result_file(name)
        rows.append(TableRow((name, file, found.provenance.command if found else None), file if found else None))
    return Table("origins", "The record of each row of the results, and the command that wrote it",
                 (Column("row", "Row"), Column("file", "Record"), Column("command", "Command")), tuple(rows))


def results_text(root: Path) -> str:
    """Return both results tables of a workspace as plain text.

    Raises:
        ValueError: `params.yaml` or a record is not as expected.
    """
    records = GridRecords.of(root)
    tables = [results_table(records, protocol).to_text() for protocol in PROTOCOLS]
    return "\n\n".join(filter(None, [*tables, left_out(records.unfit)]))
