"""One finished tiny workspace for all end-to-end tests; tests that change something take a copy."""

import shutil
from pathlib import Path

import pytest

from tests.end_to_end.workspace import Workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the whole grid has run once, undisturbed, and whose results are committed."""
    workspace = Workspace.create(tmp_path_factory.mktemp("finished") / "a folder with spaces")
    output = workspace.run("-m", "repro", "run", "--profile", "openmoji")
    assert "Report: " in output, output
    workspace.commit("Results")
    return workspace


@pytest.fixture
def copy(finished: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the finished workspace that a test may change."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    return Workspace(tmp_path / "copy")
