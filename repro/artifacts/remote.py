"""DVC's cache of a workspace and a DVC remote, object by object, and what pulling and pushing share.

The transport is DVC's own, with whatever `dvc remote add` configured. Its `fetch` is not used: it drops an object that
fails its check without a word on what was found, and without `verify` it keeps any bytes that a remote sends.
"""

import contextlib
import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from repblend.runtime.processes import LogFile
from repblend.store import refuse_links
from repro.engines.local import stop_signals_go_to
from repro.guarded_dvc import loading_only
from repro.workspace import only_run

SHIPPED = "shipped"
"""The default remote of a clone: its folder `artifacts/`, which git holds."""
Count = Callable[[int], None]
"""Is told how many more bytes were moved."""


class Missing(Exception):
    """The remote does not have the object."""


class Cache:
    """The folder where DVC keeps every version of every output."""

    def __init__(self, repo: Any) -> None:
        self._odb = repo.cache.local

    def path(self, oid: str) -> Path:
        return Path(self._odb.oid_to_path(oid))

    def protect(self, oid: str) -> None:
        """Make an object read-only: DVC takes that as a sign that it was checked."""
        self._odb.protect(self._odb.oid_to_path(oid))


class Remote:
    """A remote that `dvc remote add` configured."""

    def __init__(self, repo: Any, name: str | None) -> None:
        """
        Args:
            name: None for the default remote.

        Raises:
            ValueError: there is no such remote, or this Python cannot reach its kind.
        """
        from dvc.exceptions import DvcException

        try:
            self._odb = repo.cloud.get_remote_odb(name, command="pull")
        except DvcException as error:
            raise ValueError(f"{one_line(error)}. `dvc remote list` shows what is there; "
                             "repro/README.md, 'Cached artifacts', how to add one") from error
        self._fs = self._odb.fs
        self.name = name or repo.config["core"]["remote"]
        self.jobs: int = self._fs.jobs

    def __str__(self) -> str:
        return f"remote '{self.name}' ({self._fs.unstrip_protocol(self._odb.path)})"

    def download(self, oid: str, target: Path, count: Count) -> None:
        """Write an object to a file, as the remote sends it.

        Raises:
            Missing: the remote does not have it.
            ValueError: the remote failed.
            OSError: this machine's disk is full.
        """
        with self._failures("be read"):
            self._fs.get_file(self._odb.oid_to_path(oid), str(target), callback=_counting(count))

    def size(self, oid: str) -> int | None:
        """Return the size of an object in bytes; None if the remote does not have it.

        Raises:
            ValueError: the remote failed.
        """
        try:
            with self._failures("be read"):
                return self._fs.info(self._odb.oid_to_path(oid))["size"]
        except Missing:
            return None

    def upload(self, oid: str, source: Path, count: Count) -> None:
        """Store a file as an object.

        Raises:
            ValueError: the remote failed, or takes no files.
        """
        path = self._odb.oid_to_path(oid)
        try:
            with self._failures("be written"):
                self._fs.makedirs(self._fs.parent(path), exist_ok=True)
                self._fs.put_file(str(source), path, callback=_counting(count))
        except Missing as error:
            raise ValueError(f"{self} cannot be written: it answers that there is no such place. Is its address right, "
                             "and does it take files (a plain HTTP server takes none)?") from error

    @contextlib.contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        """Say in one line what the many transports raise in many forms."""
        try:
            yield
        except FileNotFoundError as error:
            raise Missing from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ValueError(f"{self} cannot {doing}: {one_line(error)}. Is it up, and is its address right "
                             "(`dvc remote list`)?") from error


@contextlib.contextmanager
def dvc_repository(root: Path) -> Iterator[Any]:
    """Open the workspace with DVC.

    Raises:
        ValueError: it is none, its configuration is wrong, or (in the body as well) a file of DVC's cannot be loaded.
    """
    from dvc.exceptions import DvcException  # slow to import, and not needed to explain a command
    from dvc.repo import Repo

    try:
        repo = Repo(str(root))
    except DvcException as error:
        raise ValueError(f"{root}: DVC cannot open it ({one_line(error)})") from error
    try:
        with loading_only(root), repo:
            yield repo
    except DvcException as error:
        raise ValueError(f"{root}: DVC stopped ({one_line(error)})") from error


def checkout(repo: Any, paths: Sequence[Path]) -> None:
    """Place outputs from the cache in the workspace. What was edited there stays as it is.

    Raises:
        ValueError: DVC could not, or would have overwritten something.
    """
    from dvc.exceptions import DvcException

    if not paths:
        return
    for path in paths:
        remove_unfinished(path)
    try:
        repo.checkout([str(path) for path in paths])
    except DvcException as error:
        raise ValueError(f"DVC could not place the outputs in the workspace ({one_line(error)}). They are in its "
                         "cache. If you changed one, move it away (or lose it: `dvc checkout --force PATH`) and run "
                         "this again") from error


UNFINISHED = re.compile(r"\.[A-Za-z0-9_-]{22}\.tmp")
"""What DVC calls a file that it is writing, beside the one that it becomes (`dvc_objects.fs.utils.tmp_fname`)."""


def remove_unfinished(output: Path) -> None:
    """Remove what a DVC that was killed left inside of an output; the next one would take it for the user's.

    No other process may be writing there: the caller holds the workspace.
    """
    files = output.rglob(".*.tmp") if output.is_dir() else output.parent.glob(".*.tmp")
    for file in [file for file in files if UNFINISHED.fullmatch(file.name)]:
        file.unlink()


def _counting(count: Count) -> Any:
    """Return the callback of a transport; some report what they moved, some how far they are."""
    from fsspec.callbacks import Callback

    told = 0

    def tell(size: int | None, value: int, **_: Any) -> None:
        nonlocal told
        count(value - told)
        told = value

    return Callback(hooks={"count": tell})


def one_line(error: BaseException) -> str:
    """Return the words of an error, or the innermost cause's if it has none."""
    while not str(error).strip() and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


# Several objects at a time, a bar on the terminal, a log, and an end at Ctrl-C.

Item = TypeVar("Item")
Result = TypeVar("Result")
log = logging.getLogger("repro.artifacts.remote")


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
    refuse_links(path).parent.mkdir(parents=True, exist_ok=True)
    handler = LogFile(path)
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
    def end(number: int) -> None:
        print(f"\nrepro {command}: stopped. What was moved is kept: run the same command to go on", file=sys.stderr,
              flush=True)
        os._exit(128 + number)

    with stop_signals_go_to(end):
        yield
