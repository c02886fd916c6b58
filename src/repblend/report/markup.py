"""Tables, figures and provenance as HTML that loads nothing from outside.

All HTML is in `template/parts.html.j2`, whose macros escape every value; here is what the macros are given.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined
from markupsafe import Markup

from repblend.escape import html_environment
from repblend.records.base import Provenance
from repblend.report.table import (
    EVIDENCE,
    CellValue,
    Derived,
    Number,
    Published,
    Table,
    TableRow,
    Unknown,
    text,
)

TEMPLATE = Path(__file__).with_name("template")
SHORT = 20
"""Characters up to which a text stays on one line of its cell."""
DIRECTIONS = {"ir": "Text query, images ranked", "tr": "Image query, captions ranked"}
"""How the names of recalls begin -> which way they go."""

_environment = html_environment(loader=FileSystemLoader(TEMPLATE), undefined=StrictUndefined, lstrip_blocks=True)


def part(macro: str, file: str = "parts.html.j2", /, **values: Any) -> Markup:
    """Return what a macro of a template makes of values."""
    return getattr(_environment.get_template(file).module, macro)(**values)


@dataclass(frozen=True)
class HtmlCell:
    """A cell of a table's body as the template takes it."""

    shown: str
    classes: str = ""
    origin: str = ""
    """Where the number stands, shown when pointed at."""
    anchor: str = ""
    """Where the page describes the row's record."""
    best: bool = False


def table_html(table: Table) -> Markup:
    """A table with its caption. A number says, when pointed at, where it stands, and leads to the record as its method
    does.
    """
    numeric = table.numeric()
    directions = [DIRECTIONS.get(column.name.partition("_at_")[0], "") for column in table.columns]
    groups = [(title, len([*same])) for title, same in groupby(directions)] if any(directions) else []
    rows = [(first, [_cell(cell, row, right) for cell, right in zip(row.cells, numeric, strict=True)])
            for first, row in zip(table.starts(), table.rows, strict=True)]
    return part("table", table=table, groups=groups, numeric=numeric, rows=rows)


def _cell(cell: CellValue, row: TableRow, right: bool) -> HtmlCell:
    described = anchor(row.file) if row.file and row.file.startswith("records/") else ""
    match cell:
        case Number():
            return HtmlCell(text(cell), "number", f"{row.file}: {cell.key}", described, cell.best)
        case Published():
            return HtmlCell(text(cell), "number published", f"{cell.origin}: published, {EVIDENCE[cell.evidence]}")
        case None:
            kind = "not-run"
        case Unknown():
            kind = "unknown"
        case Derived():
            kind = f"derived {row.whose}".rstrip()
        case _:
            kind = "" if right or len(text(cell)) > SHORT else "short"
    return HtmlCell(text(cell), " ".join(filter(None, ["number" if right else "", kind])),
                    anchor=described if cell == row.cells[1] else "")


def anchor(file: str) -> str:
    """Where the page describes a record: `records-evaluate-repblend-100`."""
    return file.removesuffix(".json").removesuffix("/record").replace("/", "-")


def definitions_html(definitions: Mapping[str, str]) -> Markup:
    """Definitions of records by the name of what they define, each marked as this project's own."""
    return part("definitions", definitions={
        f"{name.replace('_', ' ').capitalize()} (this project's definition)": f"{definitions[name]}."
        for name in sorted(definitions)})


def source_html(file: str, provenance: Provenance) -> Markup:
    """Everything that decided the numbers of a record, folded."""
    name = provenance.stage if provenance.cell is None else f"{provenance.stage}@{provenance.cell}"
    libraries = ", ".join(f"{library} {version}" for library, version in sorted(provenance.libraries.items()))
    return part("source", file=file, anchor=anchor(file), provenance=provenance, name=name, libraries=libraries,
                parameters=json.dumps(provenance.parameters, indent=1, sort_keys=True, ensure_ascii=False))
