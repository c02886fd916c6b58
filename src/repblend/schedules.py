"""Courses of a learning rate, its factor at a step of so many; and the epochs after which students are scored."""

import math
from collections.abc import Callable


def cosine(step: int, num_steps: int) -> float:
    """Lower the rate along half a cosine, from its value to zero."""
    return (1 + math.cos(math.pi * step / num_steps)) / 2


SCHEDULES: dict[str, Callable[[int, int], float]] = {"constant": lambda step, num_steps: 1.0, "cosine": cosine}
"""By its name in `params.yaml`."""


def warmed_up(factor: float, iteration: int, warm_up: int) -> float:
    """Scale a schedule's factor down in the first `warm_up` iterations, linearly: Adam is boldest at first."""
    return factor * min(1.0, (iteration + 1) / warm_up) if warm_up else factor


def scored_epochs(epochs: int, intervals: int) -> list[int]:
    """Return the epochs after which students are scored: 0, E // n, 2 (E // n), ... and E, as published; E alone for 0
    intervals.
    """
    return sorted({*range(0, epochs + 1, max(1, epochs // intervals)), epochs}) if intervals else [epochs]
