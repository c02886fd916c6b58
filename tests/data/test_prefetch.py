"""Read-ahead: results in order for any number of threads, few at a time, errors where they are due."""

import random
import threading
import time
from collections.abc import Iterator

import pytest

from repblend.data.prefetch import prefetched


@pytest.mark.parametrize("workers", [1, 3, 8])
@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_results_come_in_order_whatever_finishes_first(workers: int, ahead: int) -> None:
    delays = [random.Random(0).uniform(0, 0.004) for _ in range(60)]

    def make(number: int) -> int:
        time.sleep(delays[number])
        return number**2

    assert list(prefetched(make, range(60), workers, ahead)) == [(number, number**2) for number in range(60)]


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (3, 2), (4, 0)])
def test_no_more_items_are_taken_than_asked_for(workers: int, ahead: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    for used, _ in enumerate(prefetched(str, items(), workers, ahead)):
        assert len(taken) - used <= workers + ahead
    assert len(taken) == 40


def test_all_workers_work_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=10)
    assert [made for _, made in prefetched(lambda _: together.wait() >= 0, range(8), workers=4)] == [True] * 8


def test_an_error_comes_when_its_item_is_due_and_stops_the_rest() -> None:
    begun: list[int] = []

    def make(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("image 3 is damaged")
        return number

    seen = []
    with pytest.raises(ValueError, match="image 3"):
        for number, _ in prefetched(make, range(1000), workers=2, ahead=1):
            seen.append(number)
    assert seen == [0, 1, 2] and max(begun) <= 6


def test_an_abandoned_read_ahead_ends_its_threads() -> None:
    results = prefetched(str, range(1000), workers=2)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
