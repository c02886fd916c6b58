"""Progress for everything that takes more than a few seconds: bars in a terminal, plain lines in the log file.

Above a loop's own bar stands a line on the whole run, if a run started this process (`repro.course` lets it know).
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS_BETWEEN_LOG_LINES = 5.0
ONLOOKERS: list[Callable[[], None]] = []
"""Called after every item of any loop: how rehearsals take the time of single steps."""
COURSE = "REPBLEND_COURSE"
"""Variable with what is known of the whole run, as JSON: `head` (the stage and its number), `own` and `rest` (seconds
that this stage and those after it are thought to take; null if nothing is known) and `unknown` (whether some are not).
"""
BEGAN = time.monotonic()
TERMINAL: list[TextIO] = []
"""Where bars are drawn while standard error is a stage's log."""

log = logging.getLogger("repblend")


LINE = {"of_progress": True}


class TerminalHandler(logging.StreamHandler[TextIO]):
    """Log lines for whoever waits: beside bars, and without lines of progress where bars are drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        if not self.stream.isatty():
            super().emit(record)
        elif not hasattr(record, "of_progress"):
            tqdm.write(self.format(record), file=self.stream)


def overall(course: dict[str, Any], fraction: float, seconds_left: float) -> str:
    """Return the line on the whole run.

    Args:
        fraction: of the loop that goes on.
        seconds_left: until its end, as it goes now.
    """
    own = max(seconds_left, (course["own"] or 0.0) - (time.monotonic() - BEGAN))
    left, about = own + course["rest"], "at least" if course["unknown"] else "about"
    words = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min" if left < 5400 else f"{left / 3600:.1f} h"
    known = f", {about} {words} left in all" if course["rest"] or not course["unknown"] else ""
    return f"{course['head']}: {100 * fraction:.0f} %{known}"


class _Overall:
    """The line above the outermost loop's bar, in a terminal, of a process that a run started."""

    depth = 0

    def __init__(self) -> None:
        course = os.environ.get(COURSE)
        self.course = json.loads(course) if course and not _Overall.depth else None
        self.bar = tqdm(bar_format="{desc}", leave=False, disable=None, file=_stream()) if self.course else None
        self.shown = 0.0

    def __enter__(self) -> "_Overall":
        _Overall.depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        _Overall.depth -= 1
        if self.bar is not None:
            self.bar.close()

    def show(self, done: float, total: float | None, seconds: float, start: float) -> None:
        if (self.course and self.bar is not None and not self.bar.disable and total and done > start
                and seconds - self.shown > self.bar.mininterval):
            self.shown = seconds
            self.bar.set_description_str(overall(self.course, done / total, (total - done) * seconds / (done - start)))


def _stream() -> TextIO:
    return TERMINAL[-1] if TERMINAL else sys.stderr


def progress(items: Iterable[Item], label: str, unit: str = "it", start: int = 0,
             total: int | None = None, size: Callable[[Item], int] = lambda _: 1) -> Iterator[Item]:
    """Yield the items and show how far along they are.

    Args:
        label: what is being done, for example `"distill repblend-100"`.
        unit: what is counted: items, unless `size` says otherwise.
        start: items already done by an earlier run that this one resumes.
        total: how many there are with the earlier ones; by default `start + len(items)`.
        size: how many units an item stands for, for example the images of a batch.

    In a terminal a bar is drawn, below the line on the whole run; the log gets a line every few seconds and one at the
    end.
    """
    if total is None and isinstance(items, Sized):
        total = start + len(items)
    began = last = time.monotonic()
    done = start
    with (_Overall() as whole, tqdm(desc=label, unit=unit, initial=start, total=total, disable=None, leave=False,
                                    file=_stream()) as bar):
        for item in items:
            yield item
            for look in ONLOOKERS:
                look()
            done += size(item)
            bar.update(size(item))
            now = time.monotonic()
            whole.show(done, total, now - began, start)
            if now - last >= SECONDS_BETWEEN_LOG_LINES:
                rate, last = (done - start) / (now - began), now
                log.info("%s: %d%s %s, %.1f %s/s%s", label, done, f"/{total}" if total else "", unit, rate, unit,
                         f", about {(total - done) / rate:.0f} s left" if total else "", extra=LINE)
    seconds = time.monotonic() - began
    log.info("%s: %d %s done in %.1f s", label, done - start, unit, seconds, extra=LINE)
