"""Files that are either whole or absent: atomic writes, canonical JSON, SHA-256.

Everything is written beside its target and renamed, so a reader (or a run after `kill -9`) never sees half a file.
Nothing here imports NumPy: every command starts with it. Tensors are in `repblend.tensors`.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repblend.files import parse_json, read_text

JSON = dict[str, Any]


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside `target`; on success it replaces the target in one step, on any failure it is removed.

    Works for a file and for a folder (the caller creates which it wants); an existing target folder is replaced. One
    process at a time may write a target (the stages' locks see to that): leftovers of a killed one are removed.

    Raises:
        OSError: the disk is full or not writable; the message names the target and what to do.
        ValueError: as `refuse_links`.
    """
    refuse_links(target).parent.mkdir(parents=True, exist_ok=True)
    for left_by_a_killed_run in target.parent.glob(f".{target.name}.*.partial"):
        _remove(left_by_a_killed_run)
    aside, old = (target.with_name(f".{target.name}.{os.getpid()}{kind}.partial") for kind in ("", ".old"))
    try:
        yield aside
        _sync(aside)
        if target.is_dir():
            target.rename(old)  # removing takes long, and half of a folder must never have its name
        aside.replace(target)
        _sync(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, f"{target}: no space left while writing. Nothing was kept of it; "
                          "free some disk space and run the same command again") from error
        raise
    finally:
        _remove(aside)
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk: a rename must not survive a power cut that its bytes do not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Check the bytes of a file that arrived with a Python package.

    Raises:
        ValueError: the file is missing or has other bytes than expected.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint. Install the locked requirements again")
    if (found := sha256(path)) != expected:
        raise ValueError(f"{path}: SHA-256 is {found}, expected {expected}. The file is damaged or of another version: "
                         "install the locked requirements again")


def folder_sha256(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder, by its relative path."""
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as aside:
        aside.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write canonical JSON atomically: sorted keys, UTF-8, a final newline, and no NaN or infinity.

    Raises:
        ValueError: a number is not finite.
    """
    try:
        text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: a value to be written is NaN or infinite, expected finite numbers; the computation "
                         "before it diverged. Lower its learning rates") from error
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path, inside: Path | None = None) -> Any:
    """Read a JSON file.

    Args:
        inside: the folder of the set that it belongs to, if somebody gave it to us.

    Raises:
        ValueError: the file is missing, leaves its folder, is too large, not UTF-8 or not JSON; the message names the
            file and the line.
    """
    try:
        return parse_json(read_text(path, "text", inside), path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. Put it there, or run the stage that writes it "
                         "(`repro run`)") from error


def quoted(value: object) -> str:
    """Return a value as an error quotes it: the beginning is enough of a long one."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def fingerprint(content: Any) -> str:
    """Return the SHA-256 of anything JSON can hold, the same for the same content in any order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


# The clone: outputs lie in a workspace inside of it, sources and the locked environment in its own folders.

SOURCES = Path("src/repblend")
"""The package as seen from the clone."""


def repository_of(workspace: Path) -> Path:
    """Return the clone that a workspace lies in: the nearest folder, from the workspace upwards, that has the sources,
    or the workspace itself if none has. A profile's workspace is `profiles/<name>` in the clone.
    """
    return next((folder for folder in (workspace, *workspace.parents) if (folder / SOURCES).is_dir()), workspace)


MAY_BE_LINKS = re.compile(r"data/(?!(prepared|hub)$)[^/]+|\.dvc/cache")
"""In a clone: a user's data sets, and DVC's cache, which may lie on another disk."""


def refuse_links(path: Path) -> Path:
    """Return a path that is going to be written if no part of it, from its clone on downwards, is a link: what writes
    into a clone writes nowhere else, whoever put a link there. Every writer asks this.

    Raises:
        ValueError: a part is a link; the message says how to use a larger disk without one.
    """
    path = path.absolute()
    root = repository_of(path)
    parts = [part for part in (*reversed(path.parents), path) if part.is_relative_to(root) and part != root]
    link = next((part for part in parts if part.is_symlink()), None) if root != path else None
    if link and not MAY_BE_LINKS.fullmatch(link.relative_to(root).as_posix()):
        raise ValueError(f"{link}: a link to {link.readlink()}, expected a plain file or folder: what is written in a "
                         "clone stays there. Remove the link. For a larger disk, put the whole clone there, or DVC's "
                         "cache (`dvc cache dir --local PATH`)")
    return path
