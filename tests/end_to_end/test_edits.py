"""What is edited while a stage runs is not recorded as what made its outputs."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.workspace import Workspace


def edit_source(workspace: Workspace) -> None:
    with (workspace.folder / "src/repblend/stages/prepare.py").open("a") as file:
        file.write("# edited\n")


def edit_parameter(workspace: Workspace) -> None:
    workspace.change({"seed": 1})


@pytest.mark.parametrize(("edit", "name"), [(edit_source, "stages/prepare.py"), (edit_parameter, "params.yaml")])
def test_an_edit_while_a_stage_runs_is_refused_and_the_next_run_records_it(
        edit: Callable[[Workspace], None], name: str, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "workspace")
    run = workspace.start("-m", "repro", "run", "prepare", "--engine", "local")
    while run.poll() is None and not list((workspace.folder / "data").glob(".prepared.*.partial")):
        time.sleep(0.005)
    edit(workspace)
    assert run.wait(timeout=120) != 0
    assert f"{name}: edited while stage prepare ran" in workspace.output()
    lock = workspace.folder / "dvc.lock"
    assert not lock.exists() or "prepare:" not in lock.read_text()
    workspace.run("-m", "repro", "run", "prepare", "--engine", "local")
    assert "prepare:" in lock.read_text()
