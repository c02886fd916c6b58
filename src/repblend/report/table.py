"""What a table is, and how it is written: as CSV, Markdown, LaTeX and plain text.

The CSV keeps each number as it stands in its record, and names that record. The other forms round ours, and show the
paper's with the digits it was printed with. Ours reads `24.0 ± 0.5`, the paper's `24.0 (0.5)`, set in italics. Each
form is escaped by its function in `repblend.escape`; HTML is made in `markup`.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from repblend.escape import csv_cell, latex, markdown, one_line
from repblend.store import write_bytes

NOT_RUN = "not run"
EVIDENCE = {"T": "read from the paper's table or figure", "C": "read from released code",
            "S": "secondary, not checked against the paper", "D": "derived by arithmetic",
            "M": "measured by running released code on this data"}
"""How sure a published number is (`paper/published/README.md`)."""


# What stands in a cell.


@dataclass(frozen=True)
class Number:
    """A number of ours, and the key of its record that holds it."""

    mean: float
    std: float | None
    key: str
    best: bool = False
    """The largest of its column among the methods of one budget."""
    digits: int = 1
    """Digits after the point, except in the CSV."""
    unit: str = ""
    """Written behind the number where a column mixes units."""

    def __str__(self) -> str:
        shown = f"{self.mean:,.{self.digits}f}"
        spread = "" if self.std is None else f" ± {self.std:,.{self.digits}f}"
        return f"{shown}{spread} {self.unit}".rstrip()


@dataclass(frozen=True)
class Published:
    """A number of a paper, never ours."""

    mean: Decimal
    """With the digits that were printed."""
    std: Decimal | None
    origin: str
    """File of `paper/published` and its row."""
    evidence: str
    """A key of `EVIDENCE`."""
    unit: str = ""

    def __str__(self) -> str:
        spread = "" if self.std is None else f" ({self.std})"
        return f"{self.mean}{spread} {self.unit}".rstrip()


@dataclass(frozen=True)
class Unknown:
    """A number that the paper has and no source at hand gives."""

    def __str__(self) -> str:
        return "unknown"


@dataclass(frozen=True)
class Derived:
    """A number computed from others of the table."""

    value: float
    form: str
    """How it is shown, a format string."""

    def __str__(self) -> str:
        return self.form.format(self.value)


CellValue = str | int | Number | Published | Unknown | Derived | None
"""None: not run."""
NUMERIC = int | Number | Published | Derived


def text(cell: CellValue) -> str:
    """A cell as it is shown: `24.0 ± 0.5`, `24.0 (0.5)`, `1,234`, `unknown` or `not run`."""
    if cell is None:
        return NOT_RUN
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def difference_in_deviations(ours: Number | None, other: Number | Published | None) -> Derived | None:
    """Return ours minus the other in standard deviations, (ours - other) / sqrt(std_ours^2 + std_other^2).

    This project's definition. None unless both have a deviation and the deviations are not both zero.
    """
    if ours is None or other is None or ours.std is None or other.std is None:
        return None
    spread = math.hypot(ours.std, float(other.std))
    return Derived((ours.mean - float(other.mean)) / spread, "{:+.1f} sd") if spread else None


# A table and its forms.


@dataclass(frozen=True)
class Column:
    """A column: its name in the CSV and its title elsewhere."""

    name: str
    title: str
    spread: bool = False
    """Whether the CSV has a second column `<name>_std`."""


def columns(*names: str) -> tuple[Column, ...]:
    """Return columns without deviations whose titles are their names with a capital."""
    return tuple(Column(name, name.replace("_", " ").capitalize()) for name in names)


@dataclass(frozen=True)
class TableRow:
    """A row, and the record that holds its numbers; None where there is no record."""

    cells: tuple[CellValue, ...]
    file: str | None
    whose: str = ""
    """Written in the CSV in place of 'run' or 'not run' where a row holds nothing of ours."""

    @property
    def status(self) -> str:
        return self.whose or ("run" if self.file else NOT_RUN)


@dataclass(frozen=True)
class Table:
    """A table. Rows with the same first cell belong together."""

    name: str
    """File name without ending."""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    long: "Table | None" = None
    """The same for the CSV with a row per number, where the other forms have a wider layout."""

    def starts(self) -> list[bool]:
        """For each row, whether it is the first of a group."""
        firsts = [row.cells[0] for row in self.rows]
        return [first != before for before, first in zip([object(), *firsts], firsts, strict=False)]

    def numeric(self) -> list[bool]:
        """For each column, whether it holds numbers."""
        return [any(isinstance(row.cells[place], NUMERIC) for row in self.rows) for place in range(len(self.columns))]

    def to_csv(self) -> str:
        """Every digit; an empty number where `status` says 'not run'."""
        if self.long:
            return self.long.to_csv()
        buffer = io.StringIO()
        names = [name for column in self.columns
                 for name in ((column.name, f"{column.name}_std") if column.spread else (column.name,))]
        lines = [[*(value for column, cell in zip(self.columns, row.cells, strict=True)
                    for value in _csv_values(cell, column.spread)), row.status, csv_cell(row.file or "")]
                 for row in self.rows]
        csv.writer(buffer, lineterminator="\n").writerows([[*names, "status", "record"], *lines])
        return buffer.getvalue()

    def to_markdown(self) -> str:
        """A table of GitHub's Markdown below its caption."""
        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(cells)} |"

        return "\n".join([markdown(self.caption), "",
                          line([markdown(column.title) for column in self.columns]),
                          line(["---:" if each else "---" for each in self.numeric()]),
                          *(line([_emphasised(cell, markdown, "**{}**", "*{}*") for cell in row.cells])
                            for row in self.rows), ""])

    def to_latex(self) -> str:
        """A `tabular` for the package `booktabs`."""
        lines = []
        for first, row in zip(self.starts(), self.rows, strict=True):
            lines += [r"\midrule"] * first
            cells = (_emphasised(cell, latex, r"\textbf{{{}}}", r"\textit{{{}}}") for cell in row.cells)
            lines.append(" & ".join(cells) + r" \\")
        head = " & ".join(latex(column.title) for column in self.columns) + r" \\"
        alignment = "".join("r" if each else "l" for each in self.numeric())
        return "\n".join([f"% {latex(self.caption)}", rf"\begin{{tabular}}{{{alignment}}}",
                          r"\toprule", head, *lines, r"\bottomrule", r"\end{tabular}", ""])

    def to_text(self) -> str:
        """Plain text for a terminal; an empty line between groups."""
        lines = [[column.title for column in self.columns],
                 *([one_line(text(cell)) for cell in row.cells] for row in self.rows)]
        shown = in_columns(lines)
        spaced = ["\n" * first + line for first, line in zip(self.starts(), shown[1:], strict=True)]
        return "\n".join([self.caption, "", shown[0], *spaced])


def with_best(rows: list[TableRow]) -> list[TableRow]:
    """Mark the largest number of each column, if more than one row was run."""
    if sum(row.file is not None for row in rows) < 2:
        return rows
    columns = zip(*(row.cells for row in rows), strict=True)
    best = [max((cell.mean for cell in column if isinstance(cell, Number)), default=None) for column in columns]
    return [replace(row, cells=tuple(replace(cell, best=cell.mean == most) if isinstance(cell, Number) else cell
                                     for cell, most in zip(row.cells, best, strict=True))) for row in rows]


def in_columns(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return each line of cells as text, its cells as wide as the widest of their column, nothing behind the last."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


FORMATS: dict[str, Callable[[Table], str]] = {"csv": Table.to_csv, "md": Table.to_markdown, "tex": Table.to_latex}
"""File ending -> how a table is written."""


def write_table(folder: Path, table: Table) -> None:
    """Write a table in every format."""
    for ending, write in FORMATS.items():
        write_bytes(folder / f"{table.name}.{ending}", write(table).encode())


def _csv_values(cell: CellValue, spread: bool) -> tuple[str, ...]:
    match cell:
        case str():
            mean, std = csv_cell(cell), None
        case Number() | Published():
            mean, std = cell.mean, cell.std
        case Derived():
            mean, std = cell.value, None
        case _:
            mean, std = cell, None
    shown = tuple("" if value is None else str(value) for value in (mean, std))
    return shown if spread else shown[:1]


def _emphasised(cell: CellValue, escape: Callable[[str], str], best: str, published: str) -> str:
    shown = escape(text(cell))
    if isinstance(cell, Published):
        return published.format(shown)
    return best.format(shown) if isinstance(cell, Number) and cell.best else shown
