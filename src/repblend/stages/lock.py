"""One writer per output: a second process of the same stage waits a moment and then refuses.

The lock is the operating system's own (`flock`): it goes away with its process, however that ends, and holds across
containers that share the workspace.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

SECONDS_FOR_AN_ORPHAN_TO_END = 10.0


@contextlib.contextmanager
def only_writer(path: Path, what: str, wait_seconds: float = SECONDS_FOR_AN_ORPHAN_TO_END) -> Iterator[None]:
    """Hold the lock file `path` while the body runs.

    Args:
        what: the work it protects, for the message.
        wait_seconds: how long to wait for another holder. A stage left over from a killed run ends by itself within a
            second or two.

    Raises:
        ValueError: another process holds it; the message says which.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".holder.json")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout as error:
        raise ValueError(f"{what} is being written by another run ({_describe(holder)}). Wait for it to end, or stop "
                         "it; two runs must not write the same outputs") from error
    try:
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _describe(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text())
    except (OSError, ValueError):
        return "which did not say who it is"
    return f"process {found['pid']} on {found['host']}"
