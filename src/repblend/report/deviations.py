"""Differences in standard deviations, this project's definition: (ours - other) / sqrt(std_ours^2 + std_other^2)."""

import math

from repblend.report.table import Derived, Number, Published


def difference_in_deviations(ours: Number | None, other: Number | Published | None) -> Derived | None:
    """Return ours minus the other in standard deviations; None unless both have one and they are not both zero."""
    if ours is None or other is None or ours.std is None or other.std is None:
        return None
    spread = math.hypot(ours.std, float(other.std))
    return Derived((ours.mean - float(other.mean)) / spread, "{:+.1f} sd") if spread else None
