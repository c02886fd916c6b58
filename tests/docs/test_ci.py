"""`.ci/run` with a `make` that does nothing: it fails if any part fails, says which, and runs all others."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.documents import ROOT

PARTS = {"install": "install", "servers": "", "lint": "lint", "test": "test", "runs": "test-runs",
         "faults": "test-faults", "cluster": "test-cluster", "image": "test-image", "gpu": "test-gpu"}
"""Part -> what it makes."""


def run(folder: Path, *failing: str) -> tuple[int, list[str]]:
    """Run a copy of it where some targets fail; return its exit code and what it prints."""
    (folder / ".ci").mkdir()
    (folder / "bin").mkdir()
    shutil.copy(ROOT / ".ci/run", folder / ".ci/run")
    codes = "; ".join(f"[ $1 != {target} ] || exit 3" for target in failing)
    for name, text in (("make", f"echo making $1\n{codes}\n"), ("apt-get", "")):
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}")
        (folder / "bin" / name).chmod(0o755)
    done = subprocess.run([folder / ".ci/run"], env={**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


def test_every_part_runs_and_what_it_prints_is_shown(tmp_path: Path) -> None:
    code, lines = run(tmp_path)
    assert code == 0
    assert sorted(line.split()[1] for line in lines if line.startswith("making")) == sorted(filter(
        None, PARTS.values()))
    assert sorted(line.split()[1] for line in lines if line.startswith("passed")) == sorted(PARTS)


@pytest.mark.parametrize("failing", [["lint"], ["test"], ["image", "faults"]])
def test_a_part_that_fails_is_named_and_the_others_run(failing: list[str], tmp_path: Path) -> None:
    code, lines = run(tmp_path, *(PARTS[part] for part in failing))
    assert code == 1 and lines[-1] == f"failed: {' '.join(failing)}"
    assert {line.split()[1] for line in lines if line.startswith("FAILED")} == set(failing)
    assert {line.split()[1] for line in lines if line.startswith("passed")} == PARTS.keys() - set(failing)


def test_nothing_runs_in_an_environment_that_could_not_be_made(tmp_path: Path) -> None:
    code, lines = run(tmp_path, "install")
    assert code == 1 and lines[-1] == "failed: install" and "making test" not in lines
