"""A workspace with made-up metrics, and the report that was made of it once."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.synthetic import write_wider, write_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Metrics of every cell, in a folder of the test's own."""
    return write_workspace(tmp_path / "workspace")


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with every kind of metrics whose report was made; tests do not change it."""
    root = write_wider(write_workspace(tmp_path_factory.mktemp("reported") / "workspace"))
    make_report(root)
    return root


def make_report(root: Path, **variables: str) -> None:
    """Make a workspace's report as the pipeline does, in a process of its own."""
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"} | variables
    done = subprocess.run([sys.executable, "-m", "repblend.report"], cwd=root, env=environment, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
