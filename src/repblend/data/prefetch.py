"""Read-ahead: the next few items are made by threads while the current one is used.

Reading, decoding and augmenting images release Python's lock for most of their time, so threads suffice. Results come
in the order of the items, whatever the number of threads, and at most a few are held at any time.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_WORKERS = 16


def num_workers() -> int:
    """Return how many threads read ahead: one per processor that this process may use, 16 at most."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # macOS has none
    return min(MAX_WORKERS, usable or 1)


def prefetched(make: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None,
               ahead: int = 2) -> Iterator[tuple[Item, Result]]:
    """Yield each item with `make(item)`, in order.

    Args:
        make: called in another thread; must not depend on the order of calls.
        items: taken one by one, never more than `workers + ahead` before they are yielded.
        workers: number of threads; by default `num_workers()`. Changes no result.
        ahead: finished results that may wait besides those that are being made.

    Raises:
        whatever `make` raises, when its item is due; what was begun is finished first, the rest is not begun.
    """
    workers = workers or num_workers()
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="prefetch") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(make, item)))
                if len(waiting) > workers + ahead - 1:
                    yield _result(waiting)
            while waiting:
                yield _result(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _result(waiting: deque[tuple[Item, "Future[Result]"]]) -> tuple[Item, Result]:
    item, future = waiting.popleft()
    return item, future.result()
