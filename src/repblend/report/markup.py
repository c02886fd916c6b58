"""Tables, figures and provenance as HTML that loads nothing from outside."""

import base64
import json
from html import escape
from pathlib import PurePosixPath

from repblend.report.headline import Statement
from repblend.report.published import EVIDENCE
from repblend.report.table import Cell, Derived, Number, Published, Row, Table, Unknown, text
from repblend.store import JSON

DIRECTIONS = {"ir": "Text query, images ranked", "tr": "Image query, captions ranked"}


def table_html(table: Table) -> str:
    """A table with its caption. A number says, when pointed at, where it stands; a method links to its provenance."""
    numeric = table.numeric()
    rows = "".join(_row(row, first, numeric) for first, row in zip(table.starts(), table.rows, strict=True))
    return (f'<div class="table"><table id="table-{table.name}"><caption>{escape(table.caption)}. '
            f"{_files(f'paper/tables/{table.name}', ('csv', 'md', 'tex'))}</caption>\n"
            f"<thead>{_head(table, numeric)}</thead>\n<tbody>\n{rows}</tbody></table></div>")


def _files(stem: str, endings: tuple[str, ...]) -> str:
    return f'<span class="files">Files: {stem}.{{{",".join(endings)}}}</span>'


def _head(table: Table, numeric: list[bool]) -> str:
    """The titles, below a line that says which way the recalls go."""
    groups = [DIRECTIONS.get(column.name.partition("_at_")[0], "") for column in table.columns]
    above = "".join(f'<th class="group" colspan="{groups.count(group)}">{group}</th>' if group else "<th></th>"
                    for place, group in enumerate(groups) if not group or groups.index(group) == place)
    titles = "".join(f"<th{_classes('', right)}>{escape(column.title)}</th>"
                     for column, right in zip(table.columns, numeric, strict=True))
    return (f"<tr>{above}</tr>" if any(groups) else "") + f"<tr>{titles}</tr>"


def _row(row: Row, first: bool, numeric: list[bool]) -> str:
    cells = [_cell(cell, row, right) for cell, right in zip(row.cells, numeric, strict=True)]
    if not first:
        cells[0] = "<td></td>"  # the group's first row has it
    return f"<tr{' class=starts' if first else ''}>{''.join(cells)}</tr>\n"


def _cell(cell: Cell, row: Row, right: bool) -> str:
    shown = escape(text(cell))
    if isinstance(cell, Number):
        strong = f"<b>{shown}</b>" if cell.best else shown
        return f'<td class="number" title="{row.file}: {escape(cell.key)}">{strong}</td>'
    if isinstance(cell, Published):
        origin = f"{cell.origin}: published, {EVIDENCE[cell.evidence]}"
        return f'<td class="number published" title="{escape(origin)}">{shown}</td>'
    if row.file and row.file.startswith("metrics/") and cell == row.cells[1]:
        shown = f'<a href="#{anchor(row.file)}">{shown}</a>'
    kind = " ".join(filter(None, [_kind(cell), row.whose if isinstance(cell, Derived) else ""]))
    return f"<td{_classes(kind, right)}>{shown}</td>"


def _kind(cell: Cell) -> str:
    """The class of a cell that holds no measured number."""
    if cell is None:
        return "not-run"
    return {Unknown: "unknown", Derived: "derived"}.get(type(cell), "")


def _classes(kind: str, right: bool) -> str:
    names = " ".join(filter(None, ["number" if right else "", kind]))
    return f' class="{names}"' if names else ""


def anchor(file: str) -> str:
    """Where the page describes a metrics file."""
    return str(PurePosixPath(file).with_suffix("")).replace("/", "-")


def figure_html(name: str, svg: bytes, caption: str) -> str:
    """A figure with its caption, embedded as an image, so that the names inside two figures cannot meet."""
    data = base64.b64encode(svg).decode("ascii")
    return (f'<figure id="figure-{name}"><img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{escape(caption)} {_files(f'paper/figures/{name}', ('svg', 'pdf', 'png'))}</figcaption>"
            "</figure>")


def cards_html(statements: list[Statement]) -> str:
    """The few numbers to read first."""
    cards = "".join(f'<div class="card"><b>{escape(each.value)}</b><span>{escape(each.meaning)}</span></div>'
                    for each in statements)
    return f'<div class="cards">{cards}</div>' if cards else '<p class="not-run">RepBlend was not run.</p>'


def definitions_html(definitions: dict[str, str]) -> str:
    """Terms and their meanings; the meanings are HTML."""
    entries = (f"<dt>{escape(term)}</dt><dd>{meaning}</dd>" for term, meaning in definitions.items())
    return "<dl>" + "".join(entries) + "</dl>"


def source_html(file: str, provenance: JSON) -> str:
    """Everything that decided the numbers of a metrics file, folded."""
    inputs = "".join(f"<tr><td><code>{escape(path)}</code></td><td><code>{escape(digest)}</code></td></tr>"
                     for path, digest in sorted(provenance["inputs"].items()))
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(provenance["libraries"].items()))
    facts = {
        "Command": f"<code>{escape(provenance['command'])}</code>",
        "Parameters": f"<pre>{escape(json.dumps(provenance['parameters'], indent=1, sort_keys=True))}</pre>",
        "Seed, device, threads": escape(", ".join(str(provenance.get(key)) for key in ("seed", "device", "threads"))),
        "Libraries": escape(libraries) + f"; locked requirements {escape(str(provenance.get('requirements_sha256')))}",
        "Inputs and their SHA-256": f'<table class="inputs"><tbody>{inputs}</tbody></table>' if inputs else "none",
        "Commit, machine, time, memory": f"in <code>{escape(provenance['run'])}</code>, which differs from run to run",
    }
    return (f'<details class="source" id="{anchor(file)}"><summary><code>{escape(file)}</code></summary>'
            f"{definitions_html(facts)}</details>\n")
