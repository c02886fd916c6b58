"""Results of several kinds of hardware in one workspace: records say their own, the report which is where."""

from pathlib import Path

import pytest

from repblend.report import show
from repblend.runtime import provenance as made
from repblend.store import read_json
from tests.report.synthetic import path_of, read, write
from tests.stages.test_device import context

ABACUS, SLIDE_RULE = "Abacus 9000", "Slide Rule 2"


def made_on(processor: str, folder: Path, patch: pytest.MonkeyPatch) -> str:
    """Write metrics as a stage on a processor does; return the device that its record has."""
    patch.setattr(made, "processor", lambda: processor)
    found = made.provenance(context("bounds", folder, "cpu"), [])
    made.write_metric(folder / "metrics.json", {"recall": 1.0}, found)
    return found.device


def test_records_and_metrics_say_where_they_were_made_only_where_kinds_are_mixed(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(made.MIXED_VARIABLE, raising=False)
    assert made_on(ABACUS, tmp_path, monkeypatch) == "cpu"
    assert read_json(tmp_path / "metrics.json") == {"recall": 1.0}
    monkeypatch.setenv(made.MIXED_VARIABLE, "1")
    for processor in (ABACUS, SLIDE_RULE):
        assert made_on(processor, tmp_path, monkeypatch) == f"cpu ({processor})"
        assert read_json(tmp_path / "metrics.json") == {"recall": 1.0, "device": f"cpu ({processor})"}


def test_the_report_says_which_records_are_of_which_hardware(
        workspace: Path, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(made.MIXED_VARIABLE, "1")
    monkeypatch.chdir(written / "paper")
    assert "hardware" not in show.left_out().data, "another workspace, read before by the same process"
    monkeypatch.chdir(workspace / "paper")
    name = "evaluate/repblend-100"
    content = read(workspace, name)
    content["provenance"]["device"] = made_on(ABACUS, workspace, monkeypatch)
    write(workspace, name, content)
    words = show.left_out().data
    said = f"cpu ({ABACUS}): {path_of(workspace, name).relative_to(workspace)}."
    assert "Results of several kinds of hardware, which differ in last bits: cpu: " in words and said in words
