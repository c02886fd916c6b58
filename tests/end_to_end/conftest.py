"""One finished tiny workspace for all end-to-end tests; tests that change something take a copy."""

import os
import shutil
from pathlib import Path

import pytest

from tests.end_to_end.workspace import Workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which every kind of stage has run once, undisturbed, and whose results are committed."""
    workspace = Workspace.create(tmp_path_factory.mktemp("finished") / "a folder with spaces")
    assert "Report: " in workspace.run_forked("run")
    workspace.commit("Results")
    return workspace


@pytest.fixture
def copy(finished: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the finished workspace that a test may change."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True, copy_function=copy_or_link)
    return Workspace(tmp_path / "copy")


def copy_or_link(source: str, target: str) -> None:
    """Copy a file; of tensors and of DVC's cache, which nothing writes in place, make another name."""
    if source.endswith(".safetensors") or ".dvc/cache/files" in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target)
