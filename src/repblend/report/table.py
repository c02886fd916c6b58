"""What a table is, and how it is written: as CSV, Markdown, LaTeX and plain text.

The CSV keeps each number as it stands in the metrics file, and names that file. The other forms round ours, and show
the paper's with the digits it was printed with. Ours reads `24.0 ± 0.5`, the paper's `24.0 (0.5)`, set in italics.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from repblend.store import JSON, write_bytes

NOT_RUN = "not run"


@dataclass(frozen=True)
class Number:
    """A number of ours, and the key of its metrics file that holds it."""

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


def stored_number(statistics: JSON, name: str, key: str) -> Number:
    """Return a number with its deviation from the statistics that a metrics file keeps.

    Args:
        statistics: has the numbers under `mean` and their deviations under `std`.
        name: of the number in both.
        key: where the statistics stand in the file.
    """
    return Number(statistics["mean"][name], statistics["std"][name], f"{key}.mean.{name}")


@dataclass(frozen=True)
class Published:
    """A number of a paper, never ours."""

    mean: Decimal
    """With the digits that were printed."""
    std: Decimal | None
    origin: str
    """File of `paper/published` and its row."""
    evidence: str
    """One of `published.EVIDENCE`."""
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
    """How people read it, a format string."""

    def __str__(self) -> str:
        return self.form.format(self.value)


Cell = str | int | Number | Published | Unknown | Derived | None
NUMERIC = int | Number | Published | Derived


def text(cell: Cell) -> str:
    """A cell as people read it: `24.0 ± 0.5`, `24.0 (0.5)`, `1,234`, `unknown` or `not run`."""
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
    whose: str = ""
    """Said in the CSV in place of 'run' or 'not run' where a row holds nothing of ours."""

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
    rows: tuple[Row, ...]
    long: "Table | None" = None
    """The same for the CSV, a row per number, where people get a wider layout."""

    def starts(self) -> list[bool]:
        """For each row, whether it is the first of a group."""
        firsts = [row.cells[0] for row in self.rows]
        return [first != before for before, first in zip([object(), *firsts], firsts, strict=False)]

    def numeric(self) -> list[bool]:
        """For each column, whether it holds numbers."""
        return [any(isinstance(cell, NUMERIC) for cell in column)
                for column in zip(*(row.cells for row in self.rows), strict=True)]

    def to_csv(self) -> str:
        """Every digit; an empty number where `status` says 'not run'."""
        if self.long:
            return self.long.to_csv()
        buffer = io.StringIO()
        names = [name for column in self.columns
                 for name in ((column.name, f"{column.name}_std") if column.spread else (column.name,))]
        lines = [[*(value for column, cell in zip(self.columns, row.cells, strict=True)
                    for value in _csv_values(cell, column.spread)), row.status, row.file or ""] for row in self.rows]
        csv.writer(buffer, lineterminator="\n").writerows([[*names, "status", "metrics_file"], *lines])
        return buffer.getvalue()

    def to_markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        return "\n".join([self.caption, "", line([column.title for column in self.columns]),
                          line(["---:" if each else "---" for each in self.numeric()]),
                          *(line([_emphasised(cell, "**{}**", "*{}*") for cell in row.cells]) for row in self.rows),
                          ""])

    def to_latex(self) -> str:
        """A `tabular` for the package `booktabs`."""
        lines = []
        for first, row in zip(self.starts(), self.rows, strict=True):
            lines += [r"\midrule"] * first
            lines.append(" & ".join(_latex_cell(cell) for cell in row.cells) + r" \\")
        head = " & ".join(_latex(column.title) for column in self.columns) + r" \\"
        alignment = "".join("r" if each else "l" for each in self.numeric())
        return "\n".join([f"% {self.caption}", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", head, *lines,
                          r"\bottomrule", r"\end{tabular}", ""])

    def to_text(self) -> str:
        """Plain text for a terminal; an empty line between groups."""
        lines = [[column.title for column in self.columns], *([text(cell) for cell in row.cells] for row in self.rows)]
        shown = in_columns(lines)
        spaced = ["\n" * first + line for first, line in zip(self.starts(), shown[1:], strict=True)]
        return "\n".join([self.caption, "", shown[0], *spaced])


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


def _csv_values(cell: Cell, spread: bool) -> tuple[str, ...]:
    mean, std = (cell.mean, cell.std) if isinstance(cell, Number | Published) else (cell, None)
    mean = mean.value if isinstance(mean, Derived) else mean
    shown = tuple("" if value is None else str(value) for value in (mean, std))
    return shown if spread else shown[:1]


def _emphasised(cell: Cell, best: str, published: str) -> str:
    if isinstance(cell, Published):
        return published.format(text(cell))
    return best.format(text(cell)) if isinstance(cell, Number) and cell.best else text(cell)


def _latex_cell(cell: Cell) -> str:
    return _latex(_emphasised(cell, r"\textbf{{{}}}", r"\textit{{{}}}"))


def _latex(cell: str) -> str:
    for character in "&%_#$":
        cell = cell.replace(character, "\\" + character)
    return cell.replace("±", r"$\pm$").replace("×", r"$\times$")
