"""Courses of a learning rate: its factor at a step of so many."""

import math


def constant(step: int, num_steps: int) -> float:
    """Leave the rate as it is."""
    return 1.0


def cosine(step: int, num_steps: int) -> float:
    """Lower the rate along half a cosine, from its value to zero."""
    return (1 + math.cos(math.pi * step / num_steps)) / 2


SCHEDULES = {"constant": constant, "cosine": cosine}
"""By its name in `params.yaml`."""
