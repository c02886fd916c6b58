"""A stage whose run is gone stops: otherwise `kill -9` on `dvc` leaves it running, and the next run has a rival."""

import os
import sys
import threading
import time
from pathlib import Path

import psutil

RUNNERS = ("dvc", "repro", "repro.guarded_dvc")
VARIABLE_OF_THE_RUNNER = "DVC_STAGE"
"""DVC sets it for every stage that it starts."""
SECONDS_BETWEEN_LOOKS = 0.5
EXIT_CODE = 3


def runner_chain() -> list[psutil.Process]:
    """Return this process's ancestors up to the nearest one that is `dvc` or `repro`; none when started by hand."""
    chain: list[psutil.Process] = []
    for ancestor in psutil.Process().parents():
        chain.append(ancestor)
        if _is_runner(ancestor):
            return chain
    return []


def _is_runner(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()[:3]
    except psutil.Error:
        return False
    return any(Path(word).name in RUNNERS for word in words)


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
    os._exit(EXIT_CODE)
