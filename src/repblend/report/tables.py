"""The tables of the report: results by protocol, every student, what a set stores, and where each number comes from."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from repblend.report import transfer, unpublished
from repblend.report.ablation import ablation_table
from repblend.report.collapse import measures_table
from repblend.report.comparison import TITLES as COMPARED
from repblend.report.comparison import comparison_table
from repblend.report.efficiency import efficiency_table
from repblend.report.inventory import inventory_table
from repblend.report.metrics import ENCODER_STUDENTS, PROTOCOLS, RECALLS, Metrics
from repblend.report.noise import noise_table
from repblend.report.orderings import orderings_table
from repblend.report.sensitivity import sensitivity_table
from repblend.report.table import Cell, Column, Number, Row, Table
from repblend.report.titles import RECALL_TITLES, STUDENTS, title
from repblend.store import JSON

FULL_DATA = ("full-data", f"full-data{ENCODER_STUDENTS}")
"""The full training set, by what students train on it."""
NOTHING: tuple[None, ...] = (None,) * len(RECALLS)
"""The recalls of a cell that was not run."""


def results_table(metrics: Metrics, protocol: str) -> Table:
    """Return the results of every cell of the grid by one protocol, with both bounds.

    Args:
        protocol: `held-out` or `faithful`.
    """
    captions = {
        "held-out": "Held-out protocol: recall in percent on the test split, the students' epoch chosen on validation",
        "faithful": "Faithful protocol, selected on test: recall in percent on the test split, the best of the scored "
                    "epochs on that same split, as published",
    }
    rows = [row for budget in metrics.grid.budgets for row in _budget_rows(metrics, budget, protocol)]
    return Table(f"results-{protocol}", f"{captions[protocol]} (mean ± standard deviation over the evaluation seeds)",
                 (Column("pairs", "Pairs"), Column("method", "Method"), Column("students", "Students"),
                  *_recall_columns(spread=True)),
                 (*rows, *_bound_rows(metrics, protocol)))


def _recall_columns(spread: bool) -> list[Column]:
    return [Column(name, RECALL_TITLES[name], spread) for name in RECALLS]


def _budget_rows(metrics: Metrics, budget: int, protocol: str) -> list[Row]:
    rows = [_result_row(metrics, budget, method, f"{method}-{budget}", protocol) for method in metrics.trained]
    return _with_best(rows) if sum(row.file is not None for row in rows) > 1 else rows


def _result_row(metrics: Metrics, pairs: Cell, method: str, name: str, protocol: str) -> Row:
    found = metrics.evaluation(name)
    statistics = found["protocols"][protocol] if found else None
    numbers = _numbers(statistics["mean"], statistics["std"], f"protocols.{protocol}.mean") if statistics else NOTHING
    students = STUDENTS[metrics.trains_encoder(method)]
    return Row((pairs, title(method), students, *numbers), metrics.file("evaluate", name) if found else None)


def _numbers(mean: JSON, std: JSON | None, key: str) -> tuple[Number, ...]:
    return tuple(Number(mean[name], std[name] if std else None, f"{key}.{name}") for name in RECALLS)


def _with_best(rows: list[Row]) -> list[Row]:
    """Mark the largest number of each column."""
    columns = zip(*(row.cells for row in rows), strict=True)
    best = [max((cell.mean for cell in column if isinstance(cell, Number)), default=None) for column in columns]
    return [replace(row, cells=tuple(replace(cell, best=cell.mean == most) if isinstance(cell, Number) else cell
                                     for cell, most in zip(row.cells, best, strict=True))) for row in rows]


def _bound_rows(metrics: Metrics, protocol: str) -> tuple[Row, ...]:
    chance = metrics.chance()
    expected = _numbers(chance["expected"], None, "expected") if chance else NOTHING
    return (*(_result_row(metrics, _num_pairs(metrics, name), name, name, protocol) for name in FULL_DATA),
            Row(("", title("chance"), "none", *expected), metrics.file("evaluate", "chance") if chance else None))


def _num_pairs(metrics: Metrics, name: str) -> Cell:
    found = metrics.evaluation(name)
    return found["num_pairs"] if found else "all"


def seeds_table(metrics: Metrics) -> Table:
    """Return what every single student reached, under both protocols, and at which epoch."""
    rows = [row for name, pairs, method in _named_rows(metrics) for row in _seed_rows(metrics, name, pairs, method)]
    columns = (Column("pairs", "Pairs"), Column("method", "Method"), Column("students", "Students"),
               Column("protocol", "Protocol"), Column("seed", "Seed"), Column("epoch", "Epoch"),
               *_recall_columns(spread=False))
    return Table("seeds", "Recall in percent of every student, and the epoch that the protocol chose for it", columns,
                 tuple(rows))


def _named_rows(metrics: Metrics) -> Iterator[tuple[str, Cell, str]]:
    """File name, pairs and method of every row that has students."""
    for budget in metrics.grid.budgets:
        for method in metrics.trained:
            yield f"{method}-{budget}", budget, method
    for name in FULL_DATA:
        yield name, _num_pairs(metrics, name), name


def _seed_rows(metrics: Metrics, name: str, pairs: Cell, method: str) -> list[Row]:
    found, file = metrics.evaluation(name), metrics.file("evaluate", name)
    students = STUDENTS[metrics.trains_encoder(method)]
    if not found:
        return [Row((pairs, title(method), students, None, None, None, *NOTHING), None)]
    return [Row((pairs, title(method), students, protocol, number, seed["epoch"],
                 *_numbers(seed, None, f"protocols.{protocol}.seeds.{number}")), file)
            for protocol in PROTOCOLS for number, seed in enumerate(found["protocols"][protocol]["seeds"])]


def storage_table(metrics: Metrics) -> Table:
    """Return what each set stores: pairs, and bytes with its labels and learning rates."""
    rows = []
    for budget in metrics.grid.budgets:
        for method in metrics.methods:
            found, file = metrics.evaluation(f"{method}-{budget}"), metrics.file("evaluate", f"{method}-{budget}")
            size = (found["num_pairs"], found["stored_bytes"]) if found else (None, None)
            rows.append(Row((budget, title(method), *size), file if found else None))
    return Table("storage", "What each set stores. The parameters of a learned similarity count as one pair",
                 (Column("budget", "Budget"), Column("method", "Method"), Column("num_pairs", "Pairs stored"),
                  Column("stored_bytes", "Bytes stored")), tuple(rows))


def origins_table(metrics: Metrics) -> Table:
    """Return, for every row of the results, the file that holds its numbers and the command that made it."""
    rows = []
    for name in [*(name for name, _, _ in _named_rows(metrics)), "chance"]:
        found = metrics.chance() if name == "chance" else metrics.evaluation(name)
        made = (found["provenance"]["command"], found["provenance"]["run"]) if found else (None, None)
        file = metrics.file("evaluate", name)
        rows.append(Row((name, file, *made), file if found else None))
    return Table("origins", "Where each row of the results comes from",
                 (Column("row", "Row"), Column("file", "Metrics file"), Column("command", "Command"),
                  Column("run_record", "Run record")), tuple(rows))


TABLES: dict[str, Callable[[Metrics], Table]] = {
    **{f"results-{name}": partial(results_table, protocol=name) for name in PROTOCOLS},
    "inventory": inventory_table,
    "seeds": seeds_table,
    "orderings": orderings_table,
    "storage": storage_table,
    "origins": origins_table,
    **{f"published-{name}": partial(comparison_table, dataset=name) for name in COMPARED},
    "published-larger-encoders": unpublished.larger_encoders_table,
    "published-cross-architecture": unpublished.cross_architecture_table,
    "published-zero-shot": unpublished.zero_shot_table,
    **{f"cross-architecture-{name}": partial(transfer.architectures_table, protocol=name) for name in PROTOCOLS},
    "zero-shot": transfer.zero_shot_table,
    "efficiency": efficiency_table,
    "collapse-measures": measures_table,
    "ablation": ablation_table,
    "sensitivity": sensitivity_table,
    "noise": noise_table,
}
"""Every table of the report by its file name."""


def all_tables(metrics: Metrics) -> list[Table]:
    """Return every table of the report."""
    return [build(metrics) for build in TABLES.values()]


def results_text(root: Path) -> str:
    """Return both results tables of a workspace as plain text.

    Raises:
        ValueError: `params.yaml` or a metrics file is not as expected.
    """
    metrics = Metrics.of(root)
    return "\n\n".join(results_table(metrics, protocol).to_text() for protocol in PROTOCOLS)
