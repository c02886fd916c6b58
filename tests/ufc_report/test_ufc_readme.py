"""What README.md and the profile's own README say of the unimodal pipeline is what the committed metrics hold."""

import re
import shlex

import pytest
from typer.testing import CliRunner

from repblend.ufc_report.metrics import UfcMetrics
from repblend.ufc_report.tables import TABLES
from repblend.ufc_report.titles import title
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
