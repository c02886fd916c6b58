"""One hostile text in every field that takes a free text, of every record and of the runs: nothing of it is markup in a
report.
"""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from IPython.display import HTML
from pydantic import ValidationError

from repblend.records.base import Record
from repblend.report import show
from repblend.report.grid_records import GridRecords
from repblend.report.markup import table_html
from repblend.report.sections import REPORT
from tests.report.synthetic import write_wider

HOSTILE = ("=cmd|' /C calc'!A0 <script>alert(1)</script>\"'><img src=x onerror=alert(1)> "
           "\\input{/etc/passwd}\\write18{id} $\\csname$ ](javascript:alert(1)) | `x` \u202e\x1b[2J")


def texts(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where the texts of a JSON value stand."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(inner, str):
            yield *at, key
        yield from texts(inner, (*at, key))


def put(value: Any, at: tuple[Any, ...], text: str) -> Any:
    """Return a copy of a JSON value with another text at one place."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = text
    return copy


def poisoned(record: Record) -> tuple[Any, int]:
    """Return a record with the hostile text wherever its type takes one, and in how many places that is."""
    content, count = record.to_json(), 0
    for at in list(texts(content)):
        changed = put(content, at, HOSTILE)
        try:
            type(record).model_validate_json(json.dumps(changed))
        except ValidationError:
            continue
        content, count = changed, count + 1
    return content, count


@pytest.fixture(scope="module")
def hostile(written: Path, tmp_path_factory: pytest.TempPathFactory) -> GridRecords:
    """The records of a workspace that somebody else wrote."""
    root = write_wider(shutil.copytree(written, tmp_path_factory.mktemp("hostile") / "workspace"))
    total = 0
    for name, record in GridRecords.of(root).sources().items():
        content, count = poisoned(record)
        (root / name).write_text(json.dumps(content), "utf-8")
        total += count
    assert total > 500  # places that take free texts
    machine = {"processor": HOSTILE, "cores": 2, "system": HOSTILE}
    run = {"stage": "evaluate@repblend-100", "commit": HOSTILE, "dirty": True, "image_digest": HOSTILE,
           "started": HOSTILE, "wall_seconds": 1.0, "peak_memory_mib": 1.0, "machine": machine, "python": HOSTILE}
    (root / "runs.jsonl").write_text(json.dumps(run) + "\n", "utf-8")
    return GridRecords.of(root)


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def check_html(page: str) -> None:
    elements = Elements()
    elements.feed(page)
    for tag, attributes in elements.found:
        assert tag != "script", page[:2000]
        assert tag != "img" or str(dict(attributes)["src"]).startswith("data:image/png;base64,"), page[:2000]
        assert not any(name.startswith("on") or "javascript:" in (value or "") for name, value in attributes)


@pytest.mark.parametrize("name", REPORT.tables)
def test_no_table_has_markup_of_a_text(hostile: GridRecords, name: str) -> None:
    table = REPORT.tables[name](hostile)
    check_html(table_html(table))
    for row in csv.reader(io.StringIO(table.to_csv())):
        assert not any(cell.lstrip().startswith(("=", "@")) for cell in row)
    markdown = table.to_markdown()
    assert not re.search(r"(?<!\\)<(script|img)", markdown) and not re.search(r"(?<!\\)\]\(javascript", markdown)
    latex = table.to_latex()
    assert not re.search(r"\\(input|write18|csname)\b", latex)
    for written in (table_html(table), table.to_csv(), markdown, latex, table.to_text()):
        assert "\u202e" not in written and "\x1b" not in written


@pytest.mark.parametrize("part", [show.verdicts, show.pictures, show.plot, show.origin])
def test_no_part_of_the_first_screen_has_markup_of_a_text(hostile: GridRecords, part: Callable[[], HTML],
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    (hostile.root / "paper").mkdir(exist_ok=True)
    monkeypatch.chdir(hostile.root / "paper")
    html = part().data
    check_html(html)
    assert "\u202e" not in html and "\x1b" not in html
    assert ("alert(1)" in html) == (part in (show.pictures, show.origin))  # which have texts of records


def test_the_hostile_text_is_seen_as_text(hostile: GridRecords) -> None:
    """The check above would pass where no table showed any text of a record."""
    shown = "".join(table(hostile).to_csv() for table in REPORT.tables.values())
    assert "alert(1)" in shown
