"""What is edited while a stage runs is not recorded as what made its outputs."""

import time
from pathlib import Path

import pytest

from tests.end_to_end.workspace import Workspace

pytestmark = pytest.mark.runs

SOURCE = "src/repblend/stages/prepare.py"


def test_an_edit_while_a_stage_runs_is_refused_and_the_next_run_records_it(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "workspace")
    run = workspace.start("-m", "repro", "run", "prepare", "--engine", "local")
    while run.poll() is None and not list((workspace.folder / "data").glob(".prepared.*.partial")):
        time.sleep(0.005)
    workspace.edit(SOURCE)
    workspace.change({"seed": 1})
    assert run.wait(timeout=120) != 0
    assert f"params.yaml, {SOURCE}: edited while stage prepare ran" in workspace.output()
    lock = workspace.folder / "dvc.lock"
    assert not lock.exists() or "prepare:" not in lock.read_text()
    workspace.run_forked("run", "prepare", "--engine", "local")
    assert "prepare:" in lock.read_text()
