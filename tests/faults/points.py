"""Moments at which a process changes the disk, and faults at one of them.

In the process that calls `arm`, whatever opens a file for writing, writes, flushes to the disk, renames, makes or
removes something below a folder passes a point first. An undisturbed run writes down all of them (`trace`); a fault is
to happen at one: the process dies there, a write being half done; the operation fails, once or (a full disk) from there
on; or a signal arrives.
"""

import builtins
import errno
import io
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP, "SIGINT": signal.SIGINT}
KINDS = ("kill", "full", "fail", *SIGNALS)
"""What happens at a point: the process dies; the disk is full from there on; an input/output error, once; a signal."""
NEEDING_SPACE = ("open", "write", "mkdir", "truncate")


class Point(NamedTuple):
    """A place in the code at which the disk is changed."""

    operation: str
    place: str
    """The innermost two lines of the product on the stack."""
    occurrence: int
    """How often the place was passed before, by this operation."""


class Fault(NamedTuple):
    """What happens where."""

    kind: str
    point: Point


class Points:
    """The points that this process passed, and the fault that waits for it at one of them."""

    def __init__(self, folder: Path, fault: Fault | None, on_hit: Callable[[], None]) -> None:
        self._folder, self._fault, self._on_hit = f"{folder}/", fault, on_hit
        self._passed: Counter[tuple[str, str]] = Counter()
        self.trace: list[Point] = []
        self.is_full = False

    def passes(self, operation: str, target: Any) -> bool:
        """Pass a point; return whether a write is to stop half-way and then `fail`.

        Raises:
            OSError: the fault of this point.
        """
        path = str(_descriptor(target)) if isinstance(target, int) else os.path.abspath(target)  # noqa: PTH100
        if not path.startswith(self._folder):
            return False
        if self.is_full and operation in NEEDING_SPACE:
            raise self._no_space(target)
        place = _place()
        point = Point(operation, place, self._passed[operation, place])
        self._passed[operation, place] += 1
        self.trace.append(point)
        if self._fault is None or point != self._fault.point:
            return False
        self._on_hit()
        if operation == "write" and self._fault.kind in ("kill", "full"):
            return True
        self.fail(target)
        return False

    def fail(self, target: Any) -> None:
        """Let the fault happen."""
        assert self._fault
        kind = self._fault.kind
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind in SIGNALS:
            os.kill(os.getpid(), SIGNALS[kind])
        elif kind == "fail":
            raise OSError(errno.EIO, os.strerror(errno.EIO), None if isinstance(target, int) else os.fspath(target))
        elif self._fault.point.operation in NEEDING_SPACE:
            self.is_full = True
            raise self._no_space(target)

    @staticmethod
    def _no_space(target: Any) -> OSError:
        name = () if isinstance(target, int) else (os.fspath(target),)  # the system knows no name of a descriptor
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *name)


def _descriptor(number: int) -> Path:
    return Path(f"/proc/self/fd/{number}").readlink()


def _place() -> str:
    """The innermost two lines of the product, as `store.py:46 < stages/encode.py:61`."""
    found: list[str] = []
    frame = sys._getframe(2)
    while frame and len(found) < 2:
        package, _, file = frame.f_code.co_filename.rpartition("/src/repblend/")
        if not package:
            package, _, file = frame.f_code.co_filename.rpartition("/repro/")
        if package and "/tests/" not in frame.f_code.co_filename:
            found.append(f"{file}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(found)


class _File(io.FileIO):
    """A file whose writes are points."""

    points: Points

    def write(self, content: Any) -> int:
        if self.points.passes("write", self.fileno()):
            super().write(memoryview(content)[:len(content) // 2])
            self.points.fail(self.fileno())
        return super().write(content)


def arm(folder: Path, fault: Fault | None = None, on_hit: Callable[[], None] = lambda: None) -> Points:
    """Make every change below a folder by this process a point, until it ends."""
    points = Points(folder, fault, on_hit)

    def before(operation: str, function: Callable[..., Any], argument: int = 0) -> Callable[..., Any]:
        def armed(*arguments: Any, **options: Any) -> Any:
            target = arguments[argument]
            if (descriptor := options.get("dir_fd")) is not None:
                target = _descriptor(descriptor) / target
            points.passes(operation, target)
            return function(*arguments, **options)
        return armed

    for name, operation in (("replace", "rename"), ("rename", "rename"), ("unlink", "unlink"), ("remove", "unlink"),
                            ("rmdir", "rmdir"), ("mkdir", "mkdir"), ("fsync", "fsync"), ("truncate", "truncate"),
                            ("link", "open"), ("symlink", "open"), ("chmod", "chmod")):
        setattr(os, name, before(operation, getattr(os, name), 1 if name in ("rename", "link", "symlink") else 0))
    os_open, os_pwrite, open_ = os.open, os.pwrite, io.open

    def open_descriptor(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            points.passes("open", path)
        return os_open(path, flags, *arguments, **options)

    def pwrite(descriptor: int, content: Any, offset: int) -> int:
        if points.passes("write", descriptor):
            os_pwrite(descriptor, memoryview(content)[:len(content) // 2], offset)
            points.fail(descriptor)
        return os_pwrite(descriptor, content, offset)

    def open_file(file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
                  errors: str | None = None, newline: str | None = None, *rest: Any, **options: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return open_(file, mode, buffering, encoding, errors, newline, *rest, **options)
        points.passes("open", file)
        raw = _File(os.fspath(file), mode.replace("b", "").replace("t", ""), *rest, **options)
        raw.points = points
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    os.open, os.pwrite = open_descriptor, pwrite
    io.open = builtins.open = open_file
    shutil._USE_CP_SENDFILE = False  # or copies would pass no point
    return points


def shift_clock(seconds: float, after: int) -> None:
    """Let this process's clock jump after it was asked a number of times."""
    asked = 0
    now, now_ns = time.time, time.time_ns

    def jumped() -> float:
        nonlocal asked
        asked += 1
        return seconds if asked > after else 0.0

    time.time = lambda: now() + jumped()
    time.time_ns = lambda: now_ns() + int(jumped() * 1e9)
