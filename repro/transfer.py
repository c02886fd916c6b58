"""What pulling and pushing share: several objects at a time, a bar on the terminal, a log, and an end at Ctrl-C."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FrameType
from typing import TypeVar

from tqdm import tqdm

from repro.local import stop_signals_go_to
from repro.workspace import only_run

Item = TypeVar("Item")
Result = TypeVar("Result")
log = logging.getLogger("repro.transfer")


@contextlib.contextmanager
def transferring(root: Path, command: str) -> Iterator[None]:
    """Be the only writer of the workspace while the body runs, log to logs/COMMAND.log, and end at once at Ctrl-C.

    Raises:
        ValueError: another run writes this workspace.
    """
    with only_run(root), _logging_to(root / "logs" / f"{command}.log"), _ending_at_a_signal(command):
        yield


def each(work: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[Result]:
    """Yield what `work` makes of every item, as it becomes ready; after an error begin no other item."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def progress(what: str, num_bytes: int) -> tqdm:
    """Return a bar that counts bytes; it is shown on a terminal only."""
    return tqdm(total=num_bytes, desc=what, unit="B", unit_scale=True, disable=None, leave=False)


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def _ending_at_a_signal(command: str) -> Iterator[None]:
    """End hard, because a transport may sit in a download for minutes. Nothing half-written can stay by that."""
    def end(number: int, frame: FrameType | None) -> None:
        print(f"\nrepro {command}: stopped. What was moved is kept: run the same command to go on", file=sys.stderr,
              flush=True)
        os._exit(128 + number)

    with stop_signals_go_to(end):
        yield
