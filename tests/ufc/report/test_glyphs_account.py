"""The account of `ufc-glyphs` has the numbers of the trials that are stored beside it."""

import csv
import re
from pathlib import Path

from tests.stages.imports import ROOT

WORKSPACE = ROOT / "profiles" / "ufc-glyphs"
STUDIES = WORKSPACE / "paper" / "studies"
ACCOUNT = (WORKSPACE / "README.md").read_text(encoding="utf-8")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table_after(heading: str) -> list[list[str]]:
    rows = re.findall(r"^\| (.+) \|$", ACCOUNT.split(f"{heading}\n")[1].split("\n## ")[0], re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows[1:]]


def test_the_search_is_told_as_it_was_stored() -> None:
    told = [[row[name] for name in ("passes", "set", "labels", "lambda_bn", "lr", "scale", "students")]
            + [f"{float(row['held_out']):.1f}"] for row in rows_of(STUDIES / "search.csv")]
    assert table_after("## The search") == told
