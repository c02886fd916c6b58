"""Progress for everything that takes more than a few seconds: a bar in a terminal, plain lines in the log file."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS_BETWEEN_LOG_LINES = 5.0

log = logging.getLogger("repblend")


def progress(items: Iterable[Item], label: str, unit: str = "it", start: int = 0,
             total: int | None = None, size: Callable[[Item], int] = lambda _: 1) -> Iterator[Item]:
    """Yield the items and show how far along they are.

    Args:
        label: what is being done, for example `"distill repblend-100"`.
        unit: what is counted: items, unless `size` says otherwise.
        start: items already done by an earlier run that this one resumes.
        total: how many there are with the earlier ones; by default `start + len(items)`.
        size: how many units an item stands for, for example the images of a batch.

    In a terminal a bar is drawn; the log gets a line every few seconds and one at the end.
    """
    if total is None and isinstance(items, Sized):
        total = start + len(items)
    began = last = time.monotonic()
    done = start
    with tqdm(desc=label, unit=unit, initial=start, total=total, disable=None, leave=False) as bar:
        for item in items:
            yield item
            done += size(item)
            bar.update(size(item))
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_LOG_LINES:
                log.info("%s", _line(label, unit, done, total, (done - start) / (now - began)))
                last = now
    seconds = time.monotonic() - began
    log.info("%s: %d %s done in %.1f s", label, done - start, unit, seconds)


def _line(label: str, unit: str, done: int, total: int | None, rate: float) -> str:
    if total is None:
        return f"{label}: {done} {unit}, {rate:.1f} {unit}/s"
    return f"{label}: {done}/{total} {unit}, {rate:.1f} {unit}/s, about {(total - done) / rate:.0f} s left"
