"""What README.md and the profile's own README say of the unimodal pipeline is what the committed metrics hold."""

import math
import re
import shlex

import pytest
from typer.testing import CliRunner

from repblend.stages.context import Cell
from repblend.ufc_report.metrics import UfcMetrics
from repblend.ufc_report.tables import TABLES
from repblend.ufc_report.titles import title
from repblend.ufc_stages.context import StudentCell
from repro.cli import app
from repro.profiles import names
from tests.stages.imports import ROOT

WORKSPACE = ROOT / "profiles" / "ufc-digits"
SECTION = (ROOT / "README.md").read_text().split("## The unimodal pipeline (UFC)")[1].split("\n## ")[0]
COMMANDS = [shlex.split(line, comments=True) for line in re.findall(r"^repro .*$", SECTION, re.MULTILINE)]


def table_of(text: str) -> list[list[str]]:
    rows = re.findall(r"^\| (.+) \|$", text.split("| students learn from ")[1].split("\n\n")[0], re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows[1:]]


def measured() -> list[list[str]]:
    metrics, budgets = UfcMetrics.of(WORKSPACE), UfcMetrics.of(WORKSPACE).params.budgets
    rows = []
    for places in zip(*(metrics.cells(budget) for budget in budgets), strict=True):
        found = [metrics.validated(cell) for cell in places]
        rows.append([title(places[0]), *(f"{each['mean']['best']:.1f} ± {each['std']['best']:.1f}" for each in found)])
    return rows


def test_the_table_has_the_measured_numbers() -> None:
    assert table_of(SECTION) == measured()


def test_the_profiles_account_has_the_measured_comparisons() -> None:
    account = (WORKSPACE / "README.md").read_text()
    for line in TABLES["claims"](UfcMetrics.of(WORKSPACE)).to_markdown().splitlines():
        if line.startswith("| "):
            assert line in account


def test_the_teachers_reach_what_the_readme_says() -> None:
    metrics = UfcMetrics.of(WORKSPACE)
    reached = [metrics.teacher(name)["accuracy"]["test"] for name in metrics.params.teachers.architectures]
    assert f"{min(reached):.1f} to {max(reached):.1f} %" in SECTION


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_documented_commands_are_right(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command[1:], "--help"])
    assert result.exit_code == 0, result.output
    assert set(re.findall(r"ufc-[a-z0-9-]+", " ".join(command))) <= set(names(ROOT))


def test_the_profiles_that_are_named_are_those_there_are() -> None:
    assert {name for name in names(ROOT) if name.startswith("ufc-")} == set(
        re.findall(r"`(ufc-[a-z0-9-]+)`", SECTION.split("```")[0] + SECTION.split("```")[-1]))


@pytest.mark.parametrize("labels", ["static", "dynamic"])
def test_what_teachers_add_to_random_images_is_what_the_account_says(labels: str) -> None:
    account = " ".join((WORKSPACE / "README.md").read_text().split())
    metrics = UfcMetrics.of(WORKSPACE)
    found = [tuple(metrics.validated(StudentCell(Cell("random", budget), kind, "convnet-small"))
                   for kind in (labels, "hard")) for budget in (3, 7, 10)]
    points = [ours["mean"]["best"] - hard["mean"]["best"] for ours, hard in found]
    deviations = [abs(each) / math.hypot(ours["std"]["best"], hard["std"]["best"])
                  for each, (ours, hard) in zip(points, found, strict=True)]
    first, second, third = (f"{each:+.1f}" for each in points)
    if labels == "static":
        assert f"({first} and {second} points, {deviations[0]:.1f} and {deviations[1]:.1f} deviations)" in account
        assert f"though not at ten ({third})" in account
    else:
        assert f"above at all three: by {first}, {second} and {third} points, the first two by more than two" in account
        assert min(deviations[:2]) > 2 and min(points) > 0
