"""The paper's own numbers, from `paper/published`: they stand beside ours, and are never taken for ours.

Each file is a CSV whose columns are declared here; `paper/published/README.md` says where the numbers come from.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from repblend.report.schema import RECALLS
from repblend.report.table import Published
from repblend.report.titles import TITLES

FOLDER = "paper/published"
EVIDENCE = {"T": "read from the paper's table or figure", "C": "read from released code",
            "S": "secondary, not checked against the paper", "D": "derived by arithmetic"}
Parser = Callable[[str], Any]


def _number(cell: str) -> Decimal:
    try:
        value = Decimal(cell)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise ValueError(f"expected a number, found {cell!r}")
    return value


def _maybe(parse: Parser) -> Parser:
    return lambda cell: parse(cell) if cell else None


def _count(cell: str) -> int:
    if not (cell.isascii() and cell.isdigit()):
        raise ValueError(f"expected a whole number, found {cell!r}")
    return int(cell)


def _budget(cell: str) -> int | str:
    return cell if cell == "full" else _count(cell)


def _one_of(*choices: str) -> Parser:
    def parse(cell: str) -> str:
        if cell not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}, found {cell!r}")
        return cell
    return parse


def _words(cell: str) -> str:
    if not cell.strip():
        raise ValueError("expected some words, found nothing")
    return cell


_METHOD = _one_of(*TITLES, "start")
_RECALL = _one_of(*RECALLS)
_RESULTS: dict[str, Parser] = {"budget": _budget, "method": _METHOD, "recall": _RECALL, "mean": _number,
                               "std": _maybe(_number)}
UFC_QUANTITIES = ("accuracy_percent", "compression_percent")
"""Top-1 accuracy of a student on the test images, and stored bytes of those of the whole training set."""
FILES: dict[str, dict[str, Parser]] = {
    "flickr30k": _RESULTS,
    "coco": _RESULTS,
    "efficiency": {"method": _METHOD, "quantity": _words, "value": _number, "unit": _words},
    "cross-architecture": {"dataset": _words, "budget": _count, "method": _METHOD, "architecture": _words,
                           "mean_recall": _number},
    "zero-shot": {"task": _words, "metric": _RECALL, "method": _METHOD, "value": _number},
    "collapse": {"method": _METHOD, "quantity": _words, "iteration": _maybe(_count), "value": _number,
                 "reading": _one_of("plot", "caption", "annotation")},
    "ufc": {"dataset": _words, "budget": _count, "student": str, "quantity": _one_of(*UFC_QUANTITIES),
            "method": _words, "mean": _number, "std": _maybe(_number)},
}
"""File name -> column -> how its cells are read. Every file also has `source` and `evidence`."""
COMMON: dict[str, Parser] = {"source": _words, "evidence": _one_of(*EVIDENCE)}
NOT_KEYS = {"mean", "std", "value", "mean_recall", *COMMON}
"""Columns in which two rows about one thing could differ."""


@dataclass(frozen=True)
class Entry:
    """A row of a file."""

    values: dict[str, Any]
    """Column -> what its cell holds: text, a count, a `Decimal` with the digits as printed, or None."""
    origin: str
    """File and row."""

    def __getitem__(self, column: str) -> Any:
        return self.values[column]

    def number(self, value: str, std: str | None = None, unit: str = "") -> Published:
        """The number in column `value`, with the deviation in column `std`, as a cell of a table."""
        return Published(self[value], self[std] if std else None, self.origin, self["evidence"], unit)


def read_published(root: Path, name: str) -> list[Entry]:
    """Return the rows of `paper/published/<name>.csv` of a workspace.

    Raises:
        ValueError: the file is missing, a column is unknown or absent, a cell is not what its column holds, or two rows
            say the same thing; the message names the file and the row (the header is row 1).
    """
    path = root / FOLDER / f"{name}.csv"
    try:
        return _parse(path, name)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. {_mend()}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8, found byte {error.object[error.start]:#04x}. {_mend()}") from error


def _parse(path: Path, name: str) -> list[Entry]:
    columns = FILES[name] | COMMON
    with path.open(encoding="utf-8", newline="") as lines:
        header, *rows = [*csv.reader(lines)] or [[]]
    if header != list(columns):
        wrong = ", ".join(sorted(set(header) ^ set(columns))) or "their order"
        raise _error(path, 1, f"expected the columns {', '.join(columns)}; unknown or missing: {wrong}")
    entries = [Entry(_parse_row(path, number, columns, row), f"{FOLDER}/{path.name}, row {number}")
               for number, row in enumerate(rows, 2)]
    _check_distinct(path, entries)
    return entries


def _parse_row(path: Path, number: int, columns: dict[str, Parser], row: list[str]) -> dict[str, Any]:
    if len(row) != len(columns):
        raise _error(path, number, f"expected {len(columns)} cells, found {len(row)}")
    values = {}
    for (column, parse), cell in zip(columns.items(), row, strict=True):
        try:
            values[column] = parse(cell)
        except ValueError as error:
            raise _error(path, number, f"{column}: {error}") from error
    return values


def _check_distinct(path: Path, entries: list[Entry]) -> None:
    seen = set()
    for number, entry in enumerate(entries, 2):
        key = tuple(value for column, value in entry.values.items() if column not in NOT_KEYS)
        if key in seen:
            raise _error(path, number, "says again what an earlier row says")
        seen.add(key)


def _error(path: Path, row: int, problem: str) -> ValueError:
    return ValueError(f"{path}, row {row}: {problem}. {_mend()}")


def _mend() -> str:
    return f"Restore it with `git restore {FOLDER}`"
