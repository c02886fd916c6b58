"""What the wing's README and the profile's own README say of UFC is what the committed metrics hold."""

import math
import re

import pytest

from repblend.grid import Cell
from repblend.report.table import Number
from repblend.store import read_json
from repblend.ufc.report.ufc_records import UfcRecords, title
from repblend.ufc.stages.pipeline import StudentCell
from repro.claims import claims_of
from repro.profiles import names, profile_of
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
    """As `repro claims` prints them: from the committed metrics alone, whether or not records are here."""
    about = [claim for claim in claims_of(profile_of(ROOT, "ufc-digits")) if claim.entry.measure == "accuracy"]
    expected = []
    for claim in about:
        for each in claim.run:
            assert each.effect and each.effect.between_students is not None
            shown = (claim.entry.name, each.where.removesuffix(" per class"), f"{each.effect.estimate:+.1f}",
                     f"{each.effect.between_students:.1f}", each.said)
            expected.append(f"| {' | '.join(shown)} |")
    assert len(expected) == 15 and re.findall(r"^\| [a-z][a-z-]+ \|.*\|$", ACCOUNT, re.MULTILINE) == expected


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
