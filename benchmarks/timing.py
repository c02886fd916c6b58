"""How everything here is timed."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Times(NamedTuple):
    """What one call took, in seconds."""

    wall: float
    processor: float
    """Of this process alone, all its threads together, so that others at work on the machine disturb less."""


def times_of(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Times]]:
    """Return the times of each variant in each round, the variants taking turns after one round to warm up."""
    times: dict[str, list[Times]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            spent = time_of(run)
            if number:
                times[name].append(spent)
    return times


def time_of(run: Callable[[], object]) -> Times:
    """Return the times of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return Times(time.perf_counter() - wall, time.process_time() - processor)


def seconds_of(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the wall seconds of each variant in each round, as `times_of`."""
    return {name: [each.wall for each in times] for name, times in times_of(variants, rounds).items()}
