"""DVC's cache of this workspace and a DVC remote, object by object.

The transport is DVC's own, with whatever `dvc remote add` configured. Its `fetch` is not used: it drops an object that
fails its check without a word on what was found, and without `verify` it keeps any bytes that a remote sends.
"""

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
            raise ValueError(f"{_one_line(error)}. `dvc remote list` shows what is there; "
                             "README.md, 'Cached artifacts', how to add one") from error
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
            raise ValueError(f"{self} cannot {doing}: {_one_line(error)}. Is it up, and is its address right "
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
        raise ValueError(f"{root}: DVC cannot open it ({_one_line(error)})") from error
    try:
        with repo:
            yield repo
    except DvcException as error:
        raise ValueError(f"{root}: DVC stopped ({_one_line(error)})") from error


def _counting(count: Count) -> Any:
    """Return the callback of a transport; some report what they moved, some how far they are."""
    from fsspec.callbacks import Callback

    told = 0

    def tell(size: int | None, value: int, **_: Any) -> None:
        nonlocal told
        count(value - told)
        told = value

    return Callback(hooks={"count": tell})


def _one_line(error: BaseException) -> str:
    """Return the words of an error, or the innermost cause's if it has none."""
    while not str(error).strip() and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
