"""What a killed DVC leaves in its own list of who reads and writes what, `.dvc/tmp/rwlock`: numbers of processes.

DVC takes an entry for dead if no process has its number. In a container numbers start anew: the one of the killed DVC
is that of the next, which then waits for itself. And a DVC killed while it wrote the list leaves half of it.
"""

import json
from pathlib import Path, PurePosixPath

MOUNT = PurePosixPath("/workspace")
"""Where every workspace is mounted in its containers: outputs must not depend on where it lies on the host."""
LIST = Path(".dvc/tmp/rwlock")


def forget_killed(root: Path) -> None:
    """Remove DVC's list if it is broken or has entries of a container. The caller holds the workspace's lock, so that
    no such container runs.
    """
    path = root / LIST
    try:
        text = path.read_text()
    except FileNotFoundError:
        return
    if str(MOUNT / "repro" / "guarded_dvc.py") in text or not _is_json(text):
        path.unlink()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True
