"""How commands and stages end: with one line that says why, when their run is gone, and one writer at a time."""

import contextlib
import errno
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from repblend.store import refuse_links

ONLY = "--only"
"""Option of a stage whose work has parts: the number of one, to be done alone."""


def exit_code(what: str, work: Callable[[], object]) -> int:
    """Do a command's work and return its exit code; what stopped it is said in one line that begins with `what`."""
    try:
        work()
    except KeyboardInterrupt:
        print(f"{what}: stopped; run the same command to go on", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ValueError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.strerror == os.strerror(errno.ENOSPC):  # nobody said more of it
            reason = (f"{error.filename or Path.cwd()}: no space left. Free some disk space and run the same command "
                      "again")
        print(f"{what}: {reason}", file=sys.stderr)
        return 1
    return 0


class LogFile(logging.FileHandler):
    """A log begun anew, of lines that the terminal has too. A disk too full for them is told of by outputs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="w", encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing, where the base class prints a traceback."""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


# A stage whose run is gone stops: otherwise `kill -9` on `dvc` leaves it running, and the next run has a rival.

RUNNERS = ("dvc", "repro", "repro.guarded_dvc", "submitit.core._submit")
VARIABLE_OF_THE_RUNNER = "DVC_STAGE"
"""DVC sets it for every stage that it starts."""
SECONDS_BETWEEN_LOOKS = 0.5
EXIT_CODE = 3


def runner_chain() -> list[psutil.Process]:
    """Return this process's ancestors up to the nearest one that is `dvc` or `repro`; none when started by hand."""
    chain: list[psutil.Process] = []
    for ancestor in psutil.Process().parents():
        chain.append(ancestor)
        with contextlib.suppress(psutil.Error):
            if any(Path(word).name in RUNNERS for word in ancestor.cmdline()[:4]):
                return chain
    return []


def stop_with_the_runner() -> None:
    """Watch the run that started this process from a background thread; end the process when it is gone.

    Ends it hard, within about a second: outputs are written aside and renamed, so nothing half-written stays.
    """
    chain = runner_chain()
    if chain:
        threading.Thread(target=_watch, args=(chain,), name="guard", daemon=True).start()
    elif VARIABLE_OF_THE_RUNNER in os.environ:  # it was killed before we looked
        _stop()


def _watch(chain: list[psutil.Process]) -> None:
    while all(map(_lives, chain)):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    _stop()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it went between the two questions
        return False


def _stop() -> None:
    print("the run that started this stage is gone: stopping", file=sys.stderr, flush=True)
    kill_children()  # which may be commands that watch nothing
    os._exit(EXIT_CODE)


def kill_children() -> None:
    """Kill all processes that this one has started, and those that they have."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


# One writer per output: a second process of the same stage waits a moment and then refuses.
#
# The lock is the operating system's own (`flock`): it goes away with its process, however that ends, and holds across
# containers that share the workspace.

SECONDS_FOR_AN_ORPHAN_TO_END = 10.0


@contextlib.contextmanager
def only_writer(path: Path, what: str, wait_seconds: float = SECONDS_FOR_AN_ORPHAN_TO_END) -> Iterator[None]:
    """Hold the lock file `path`, which protects `what`, while the body runs.

    Another holder is waited for: a stage left over from a killed run ends by itself within a second or two.

    Raises:
        ValueError: another process holds it, and the message says which; or as `refuse_links`.
    """
    holder = refuse_links(path.with_suffix(".holder.json"))
    refuse_links(path).parent.mkdir(parents=True, exist_ok=True)
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
