"""`repro export`: write a set as a folder for others, in a process of its own (it needs torch)."""

import subprocess
import sys
from pathlib import Path

from repro.profiles import profile_of
from repro.workspace import find_root, python, workspace_environment


def main(cell: str, folder: str, name: str) -> int:
    """Write the folder; return the exit code."""
    try:
        root = profile_of(find_root(), name).workspace
    except ValueError as error:
        print(f"repro export: {error}", file=sys.stderr)
        return 1
    command = python("-m", "repblend.release", cell, str(Path(folder).absolute()))
    return subprocess.run(command, cwd=root, env=workspace_environment(root), check=False).returncode
