"""Outputs against dvc.lock around a run: what DVC would believe without a look.

DVC takes a file for what it was while its inode, size and time of modification are, and an object of its cache for
checked if it is read-only. Anybody can set all of these. Here every byte counts, but for a large file whose inode,
size, and times of modification and of *change* are those that it had when it was hashed: no program can set the last.
What was hashed is noted in `.dvc/tmp`, which containers do not see.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repblend.runtime.locked import FOLDER_SUFFIX, LOCK, RESULTS, Lock, Output, difference, lies_in, md5
from repblend.store import repository_of, write_json
from repro.artifacts.manifest import files_of, list_of
from repro.workspace import cache_of

NOTES = Path(".dvc/tmp/hashed.json")
"""In the clone."""
SETTLED_NS = 1_000_000_000
"""A file that was changed this shortly before could be changed once more within a tick of the clock: not noted."""
NOT_RESULTS = ("paper",)
"""Made from results by whoever likes, with DVC or without."""


class Hashes:
    """MD5 of files by their paths, remembered from run to run."""

    def __init__(self, root: Path) -> None:
        self._path = root / NOTES
        try:
            self._before: Mapping[str, Any] = dict(json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError, RecursionError):  # none yet, or a damaged one: all is hashed
            self._before = {}
        self._now: dict[str, Any] = {}

    def __call__(self, path: Path) -> str:
        status = path.stat()
        seen = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        noted = self._before.get(str(path))
        found = noted[1] if isinstance(noted, list) and noted[0] == seen else md5(path)
        if time.time_ns() - status.st_ctime_ns > SETTLED_NS:
            self._now[str(path)] = [seen, found]
        return found

    def write(self) -> None:
        """Note what was asked for, and keep what was noted before of files that are still there."""
        kept = {path: noted for path, noted in self._before.items() if os.path.lexists(path)}
        write_json(self._path, {**kept, **self._now})


def make_dvc_look(workspace: Path) -> list[str]:
    """Return what in a workspace is not as dvc.lock records, a line per output, and let DVC see it: files that differ
    become new to it, and what is no object of its cache is removed from there, so that the next run makes them again.

    Raises:
        ValueError: dvc.lock is not of DVC's form.
    """
    if not (workspace / LOCK).is_file():
        return []
    root, told = repository_of(workspace), []
    hashes = Hashes(root)
    for path, output in Lock.read(workspace / LOCK).outputs.items():
        if lies_in(path, NOT_RESULTS):
            continue
        wrong = difference(workspace, output, md5 if lies_in(path, RESULTS) else hashes)
        if wrong:
            told.append(wrong)
            for file in output.files(workspace).values():
                os.utime(file)
        if wrong or not (workspace / path).exists():
            _forget_wrong_objects(root, output, hashes)
    hashes.write()
    return told


def _forget_wrong_objects(root: Path, output: Output, hashes: Hashes) -> None:
    cache = cache_of(root) / "files/md5"

    def place(oid: str) -> Path:
        return cache / oid[:2] / oid[2:]

    def is_right(oid: str) -> bool:
        path = place(oid)
        if not os.path.lexists(path):
            return False
        right = not path.is_symlink() and path.is_file() and hashes(path) == oid.removesuffix(FOLDER_SUFFIX)
        if not right:
            path.unlink()
        return right

    if not output.is_folder or is_right(list_of(output).oid):
        for item in files_of(output, place(output.md5)):
            is_right(item.oid)
