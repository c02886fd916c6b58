"""A workspace with made-up records, and the report that was made of it once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repblend.report.sections import REPORT
from tests.report.synthetic import write_wider, write_workspace


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of every cell; tests do not change it."""
    return write_workspace(tmp_path_factory.mktemp("written") / "workspace")


@pytest.fixture
def workspace(written: Path, tmp_path: Path) -> Path:
    """Records of every cell, in a folder of the test's own."""
    return shutil.copytree(written, tmp_path / "workspace")


@pytest.fixture(scope="session")
def reported(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with every kind of record whose report was made; tests do not change it."""
    root = write_wider(shutil.copytree(written, tmp_path_factory.mktemp("reported") / "workspace"))
    make_report(root)
    return root


def make_report(root: Path, **variables: str) -> None:
    """Make a workspace's report; with environment variables as the pipeline does, in a process of its own."""
    if not variables:
        REPORT.make(root)
        return
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"} | variables
    done = subprocess.run([sys.executable, "-m", "repblend.report"], cwd=root, env=environment, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
