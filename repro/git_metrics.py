"""Metrics come with the clone: git holds them, dvc.lock records their MD5. Missing ones are restored from git."""

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from repblend.store import write_bytes
from repro.artifacts import Output, Problem
from repro.manifest import md5

MEND = "bring back the committed files (git checkout HEAD -- dvc.lock metrics), or compute it here: repro run {stage}"


def restore(root: Path, metrics: Sequence[Output]) -> list[Problem]:
    """Check that metrics files have the bytes that dvc.lock records, and restore those that are missing.

    A file that differs is left alone: it may be the only copy of somebody's work.
    """
    return [problem for output in metrics if (problem := _problem(root, output))]


def _problem(root: Path, output: Output) -> Problem | None:
    path = root / output.path
    if path.is_file():
        found = md5(path)
        if found == output.md5:
            return None
        return Problem(output, f"{output.path}: expected MD5 {output.md5} (dvc.lock), found {found}. It was left as it "
                               "is")
    committed = _committed(root, output.path)
    if committed is None:
        return Problem(output, f"{output.path}: no such file, and git has none either")
    found = hashlib.md5(committed, usedforsecurity=False).hexdigest()
    if found != output.md5:
        return Problem(output, f"{output.path}: no such file. Expected MD5 {output.md5} (dvc.lock), but the one in git "
                               f"has {found}")
    write_bytes(path, committed)
    return None


def _committed(root: Path, path: str) -> bytes | None:
    done = subprocess.run(["git", "-C", root, "show", f"HEAD:./{path}"], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None
