"""What the wing's README and the profile's own README say of UFC is what the committed metrics hold."""

import math
import re

import pytest

from repblend.grid import Cell
from repblend.report.table import Number
from repblend.store import read_json
from repblend.ufc.report.tables import CLAIMS, compared
from repblend.ufc.report.ufc_records import UfcRecords, title
from repblend.ufc.stages.pipeline import StudentCell
from repro.profiles import names
from tests.stages.imports import ROOT

WORKSPACE = ROOT / "profiles" / "ufc-digits"
RECORDS = UfcRecords.of(WORKSPACE)
README = (ROOT / "src/repblend/ufc/README.md").read_text()
ACCOUNT = (WORKSPACE / "README.md").read_text()
STUDENT = "convnet-small"


def accuracy(cell: StudentCell) -> Number:
    """Of the epoch chosen on held-out images, as `dvc metrics show` prints it."""
    found = read_json(RECORDS.paths.metric("held-out", cell))
    return Number(found["accuracy"], found["accuracy_std"], "accuracy")


def test_the_table_has_the_measured_numbers() -> None:
    rows = re.findall(r"^\| (.+) \|$", README.split("| students learn from ")[1].split("\n\n")[0], re.MULTILINE)
    by_budget = zip(*(RECORDS.cells(budget) for budget in RECORDS.params.budgets), strict=True)
    assert [[cell.strip() for cell in row.split("|")] for row in rows[1:]] == [
        [title(cells[0]), *(str(accuracy(cell)) for cell in cells)] for cells in by_budget]


def test_the_profiles_account_has_the_measured_comparisons() -> None:
    expected = []
    for budget in RECORDS.params.budgets:
        for (better, labels), (other, other_labels) in CLAIMS:
            cells = (StudentCell(Cell(better, budget), labels, STUDENT),
                     StudentCell(Cell(other, budget), other_labels, STUDENT))
            shown = (budget, *map(title, cells), STUDENT, *compared(*map(accuracy, cells)))
            expected.append(f"| {' | '.join(map(str, shown))} |")
    assert re.findall(r"^\| \d.*\|$", ACCOUNT, re.MULTILINE) == expected


def test_the_teachers_reach_what_the_readme_says() -> None:
    reached = [read_json(RECORDS.paths.metric("held-out", f"teacher+{name}"))["accuracy"]
               for name in RECORDS.params.teachers.architectures]
    assert f"{min(reached):.1f} to {max(reached):.1f} %" in README


def test_the_profiles_that_are_named_are_those_there_are() -> None:
    assert {name for name in names(ROOT) if name.startswith("ufc-")} == set(
        re.findall(r"`(ufc-[a-z0-9-]+)`", README.split("```")[0]))


@pytest.mark.parametrize("labels", ["static", "dynamic"])
def test_what_teachers_add_to_random_images_is_what_the_account_says(labels: str) -> None:
    account = " ".join(ACCOUNT.split())
    found = [tuple(accuracy(StudentCell(Cell("random", budget), kind, STUDENT)) for kind in (labels, "hard"))
             for budget in (3, 7, 10)]
    points = [ours.mean - hard.mean for ours, hard in found]
    deviations = [abs(each) / math.hypot(ours.std, hard.std) for each, (ours, hard) in zip(points, found, strict=True)]
    first, second, third = (f"{each:+.1f}" for each in points)
    if labels == "static":
        assert f"({first} and {second} points, {deviations[0]:.1f} and {deviations[1]:.1f} deviations)" in account
        assert f"though not at ten ({third})" in account
    else:
        assert f"above at all three: by {first}, {second} and {third} points, the first two by more than two" in account
        assert min(deviations[:2]) > 2 and min(points) > 0
