"""`repro parity`: replay recordings of the official implementation, in a process of its own (it needs torch)."""

import subprocess
from collections.abc import Sequence

from repro.workspace import environment, python


def main(files: Sequence[str]) -> int:
    """Replay the files; return 0 if every array agrees, 1 if one does not, 2 if a file cannot be replayed."""
    return subprocess.run(python("-m", "repblend.parity", *files), env=environment(), check=False).returncode
