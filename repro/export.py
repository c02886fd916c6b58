"""`repro export`: write a set as a folder for others, in a process of its own (it needs torch)."""

import subprocess
import sys
from pathlib import Path

from repro.workspace import find_root, python, workspace_environment


def main(cell: str, folder: str) -> int:
    """Write the folder; return the exit code."""
    try:
        root = find_root()
    except ValueError as error:
        print(f"repro export: {error}", file=sys.stderr)
        return 1
    command = python("-m", "repblend.release", cell, str(Path(folder).absolute()))
    return subprocess.run(command, cwd=root, env=workspace_environment(root), check=False).returncode
