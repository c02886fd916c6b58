"""How everything here is timed."""

import time
from collections.abc import Callable, Mapping


def seconds_of(variants: Mapping[str, Callable[[], object]], rounds: int,
               clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """Return the seconds of each variant in each round, the variants taking turns after one round to warm up.

    Args:
        clock: `time.process_time` counts this process alone, so that others at work on the machine disturb less.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            began = clock()
            run()
            if number:
                seconds[name].append(clock() - began)
    return seconds
