"""A full disk, in one line that names a place on it and the remedy, in whichever form libraries have met it."""

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
ROOM = 1 << 16
"""Bytes that the files of a job may need; with less than that there is no use in trying again."""


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came of, is a disk without space, or a quota that is used up."""
    while error is not None:
        if isinstance(error, shutil.Error):  # of many files, in words alone
            return any(os.strerror(number) in str(error) for number in FULL)
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:  # of what DVC notes for itself
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def full_disk_told(*places: Path) -> Iterator[None]:
    """Raise a full disk as an `OSError` that names the fullest of the places that the body writes to."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        raise OSError(errno.ENOSPC, no_space(*places)) from error


def no_space(*places: Path) -> str:
    """Say that the fullest of these places is full, and how to mend it."""
    fullest = min(places, key=lambda place: shutil.disk_usage(_existing(place)).free)
    return f"{fullest}: no space left. Free some disk space and run the same command again"


def _existing(place: Path) -> Path:
    return next(path for path in (place, *place.absolute().parents) if path.exists())


def no_room_in(folder: Path) -> str | None:
    """Say that a folder takes no file of `ROOM` bytes; None if it does. Free blocks tell nothing of a quota."""
    probe = folder / ".room"
    try:
        probe.write_bytes(bytes(ROOM))
    except OSError as error:
        return no_space(folder) if is_full(error) else None
    finally:
        probe.unlink(missing_ok=True)
    return None
