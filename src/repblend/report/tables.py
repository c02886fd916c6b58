"""Tables: results by protocol, and where each number comes from; as CSV, Markdown, LaTeX, HTML and plain text.

The CSV keeps each number as it stands in the metrics file, and names that file. The other forms round recalls to a
tenth of a percentage point.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repblend.report.metrics import PROTOCOLS, RECALLS, Metrics
from repblend.report.titles import RECALL_TITLES, title
from repblend.store import JSON, write_bytes

NOT_RUN = "not run"


@dataclass(frozen=True)
class Number:
    """A recall in percent, and the key of its metrics file that holds it."""

    mean: float
    std: float | None
    key: str
    best: bool = False
    """The largest of its column among the methods of one budget."""

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.std is None else f"{self.mean:.1f} ± {self.std:.1f}"


Cell = str | int | Number | None


def text(cell: Cell) -> str:
    """A cell as people read it: `24.0 ± 0.5`, `1,234`, or `not run`."""
    if cell is None:
        return NOT_RUN
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


@dataclass(frozen=True)
class Column:
    """A column: its name in the CSV and its title elsewhere."""

    name: str
    title: str
    spread: bool = False
    """Whether the CSV has a second column `<name>_std`."""


@dataclass(frozen=True)
class Row:
    """A row, and the metrics file that holds its numbers; None where the file is not there."""

    cells: tuple[Cell, ...]
    file: str | None


@dataclass(frozen=True)
class Table:
    """A table. Rows with the same first cell belong together."""

    name: str
    """File name without ending."""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def starts(self) -> list[bool]:
        """For each row, whether it is the first of a group."""
        firsts = [row.cells[0] for row in self.rows]
        return [first != before for before, first in zip([None, *firsts], firsts, strict=False)]

    def numeric(self) -> list[bool]:
        """For each column, whether it holds numbers."""
        return [any(isinstance(cell, int | Number) for cell in column)
                for column in zip(*(row.cells for row in self.rows), strict=True)]

    def to_csv(self) -> str:
        """Every digit; an empty number where `status` says 'not run'."""
        buffer = io.StringIO()
        names = [name for column in self.columns
                 for name in ((column.name, f"{column.name}_std") if column.spread else (column.name,))]
        lines = [[*(value for column, cell in zip(self.columns, row.cells, strict=True)
                    for value in _csv_values(cell, column.spread)), "run" if row.file else NOT_RUN, row.file or ""]
                 for row in self.rows]
        csv.writer(buffer, lineterminator="\n").writerows([[*names, "status", "metrics_file"], *lines])
        return buffer.getvalue()

    def to_markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        return "\n".join([self.caption, "", line([column.title for column in self.columns]),
                          line(["---:" if each else "---" for each in self.numeric()]),
                          *(line([_emphasised(cell, "**{}**") for cell in row.cells]) for row in self.rows), ""])

    def to_latex(self) -> str:
        """A `tabular` for the package `booktabs`."""
        lines = []
        for first, row in zip(self.starts(), self.rows, strict=True):
            lines += [r"\midrule"] * first
            lines.append(" & ".join(_latex(_emphasised(cell, r"\textbf{{{}}}")) for cell in row.cells) + r" \\")
        head = " & ".join(_latex(column.title) for column in self.columns) + r" \\"
        alignment = "".join("r" if each else "l" for each in self.numeric())
        return "\n".join([f"% {self.caption}", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", head, *lines,
                          r"\bottomrule", r"\end{tabular}", ""])

    def to_text(self) -> str:
        """Plain text for a terminal; an empty line between groups."""
        lines = [[column.title for column in self.columns], *([text(cell) for cell in row.cells] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                 for line in lines]
        spaced = ["\n" * first + line for first, line in zip(self.starts(), shown[1:], strict=True)]
        return "\n".join([self.caption, "", shown[0], *spaced])


FORMATS: dict[str, Callable[[Table], str]] = {"csv": Table.to_csv, "md": Table.to_markdown, "tex": Table.to_latex}
"""File ending -> how a table is written."""


def write_table(folder: Path, table: Table) -> None:
    """Write a table in every format."""
    for ending, write in FORMATS.items():
        write_bytes(folder / f"{table.name}.{ending}", write(table).encode())


def _csv_values(cell: Cell, spread: bool) -> tuple[str, ...]:
    mean, std = (cell.mean, cell.std) if isinstance(cell, Number) else (cell, None)
    shown = tuple("" if value is None else str(value) for value in (mean, std))
    return shown if spread else shown[:1]


def _emphasised(cell: Cell, form: str) -> str:
    return form.format(text(cell)) if isinstance(cell, Number) and cell.best else text(cell)


def _latex(cell: str) -> str:
    for character in "&%_#$":
        cell = cell.replace(character, "\\" + character)
    return cell.replace("±", r"$\pm$")


def results_table(metrics: Metrics, protocol: str) -> Table:
    """Return the results of every cell of the grid by one protocol, with both bounds.

    Args:
        protocol: `held-out` or `faithful`.
    """
    captions = {
        "held-out": "Held-out protocol: recall in percent on the test split, the students' epoch chosen on validation",
        "faithful": "Faithful protocol: recall in percent on the test split, the students' epoch selected on that same "
                    "test split, as published",
    }
    rows = [row for budget in metrics.grid.budgets for row in _budget_rows(metrics, budget, protocol)]
    return Table(f"results-{protocol}", f"{captions[protocol]} (mean ± standard deviation over the evaluation seeds)",
                 (Column("pairs", "Pairs"), Column("method", "Method"), *_recall_columns(spread=True)),
                 (*rows, *_bound_rows(metrics, protocol)))


def _recall_columns(spread: bool) -> list[Column]:
    return [Column(name, RECALL_TITLES[name], spread) for name in RECALLS]


def _budget_rows(metrics: Metrics, budget: int, protocol: str) -> list[Row]:
    rows = [_result_row(metrics, budget, title(method), f"{method}-{budget}", protocol) for method in metrics.methods]
    return _with_best(rows) if sum(row.file is not None for row in rows) > 1 else rows


def _result_row(metrics: Metrics, pairs: Cell, shown: str, name: str, protocol: str) -> Row:
    found = metrics.evaluation(name)
    statistics = found["protocols"][protocol] if found else None
    numbers = _numbers(statistics["mean"], statistics["std"], f"protocols.{protocol}.mean") if statistics else NOTHING
    return Row((pairs, shown, *numbers), metrics.file("evaluate", name) if found else None)


NOTHING: tuple[None, ...] = (None,) * len(RECALLS)


def _numbers(mean: JSON, std: JSON | None, key: str) -> tuple[Number, ...]:
    return tuple(Number(mean[name], std[name] if std else None, f"{key}.{name}") for name in RECALLS)


def _with_best(rows: list[Row]) -> list[Row]:
    """Mark the largest number of each column."""
    columns = zip(*(row.cells for row in rows), strict=True)
    best = [max((cell.mean for cell in column if isinstance(cell, Number)), default=None) for column in columns]
    return [replace(row, cells=tuple(replace(cell, best=cell.mean == most) if isinstance(cell, Number) else cell
                                     for cell, most in zip(row.cells, best, strict=True))) for row in rows]


def _bound_rows(metrics: Metrics, protocol: str) -> tuple[Row, Row]:
    full, chance = metrics.evaluation("full-data"), metrics.chance()
    expected = _numbers(chance["expected"], None, "expected") if chance else NOTHING
    return (_result_row(metrics, full["num_pairs"] if full else "all", title("full-data"), "full-data", protocol),
            Row(("", title("chance"), *expected), metrics.file("evaluate", "chance") if chance else None))


def seeds_table(metrics: Metrics) -> Table:
    """Return what every single student reached, under both protocols, and at which epoch."""
    rows = [row for name, pairs, method in _named_rows(metrics) for row in _seed_rows(metrics, name, pairs, method)]
    columns = (Column("pairs", "Pairs"), Column("method", "Method"), Column("protocol", "Protocol"),
               Column("seed", "Seed"), Column("epoch", "Epoch"), *_recall_columns(spread=False))
    return Table("seeds", "Recall in percent of every student, and the epoch that the protocol chose for it", columns,
                 tuple(rows))


def _named_rows(metrics: Metrics) -> Iterator[tuple[str, Cell, str]]:
    """File name, pairs and method of every row that has students."""
    for budget in metrics.grid.budgets:
        for method in metrics.methods:
            yield f"{method}-{budget}", budget, method
    full = metrics.evaluation("full-data")
    yield "full-data", full["num_pairs"] if full else "all", "full-data"


def _seed_rows(metrics: Metrics, name: str, pairs: Cell, method: str) -> list[Row]:
    found, file = metrics.evaluation(name), metrics.file("evaluate", name)
    if not found:
        return [Row((pairs, title(method), None, None, None, *NOTHING), None)]
    return [Row((pairs, title(method), protocol, number, seed["epoch"],
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


def all_tables(metrics: Metrics) -> list[Table]:
    """Return every table of the report."""
    return [*(results_table(metrics, protocol) for protocol in PROTOCOLS), seeds_table(metrics),
            storage_table(metrics), origins_table(metrics)]


def results_text(root: Path) -> str:
    """Return both results tables of a workspace as plain text.

    Raises:
        ValueError: `params.yaml` or a metrics file is not as expected.
    """
    metrics = Metrics.of(root)
    return "\n\n".join(results_table(metrics, protocol).to_text() for protocol in PROTOCOLS)
