"""Which of the paper's orderings hold here: RepBlend over LoRS over TESLA-VL, and all of them over coresets.

Held-out mean recalls of two rows of one budget. Their difference is given in standard deviations, the root of both
variances added; an ordering holds, or does not, from one such deviation on (this project's definition).
"""

import math
from collections.abc import Iterator

from repblend.report.metrics import ENCODER_STUDENTS, Metrics
from repblend.report.table import Column, Derived, Number, Row, Table, stored_number
from repblend.report.titles import title

CHAIN = (("repblend", "lors"), ("lors", "tesla-vl"))
"""Each method should lead the next."""
OVER_CORESETS = ("repblend", "lors", "tesla-vl")
"""Each should lead the best coreset that its kind of students was trained on."""
KEY = "protocols.held-out"


def orderings_table(metrics: Metrics) -> Table:
    """Return every ordering at every budget, with its verdict; raises as `Metrics.evaluation`."""
    rows = tuple(_row(metrics, budget, first, second) for budget in metrics.grid.budgets
                 for first, second in _pairs(metrics, budget))
    return Table("orderings", "The orderings that the paper reports, on the data of this run: held-out mean recall in "
                 "percent, each method with students of its own kind. Holds, or does not: by one standard deviation "
                 "(of students) or more",
                 (Column("pairs", "Pairs"), Column("ordering", "Ordering"), Column("first", "First", spread=True),
                  Column("second", "Second", spread=True), Column("difference_in_std", "Difference"),
                  Column("verdict", "Verdict")), rows)


def _pairs(metrics: Metrics, budget: int) -> Iterator[tuple[str, str]]:
    yield from CHAIN
    for method in OVER_CORESETS:
        beside = ENCODER_STUDENTS if metrics.trains_encoder(method) else ""
        coresets = metrics.grid.encoder_coresets if beside else metrics.grid.coresets
        yield method, max((f"{coreset}{beside}" for coreset in coresets),
                          key=lambda name: _mean(metrics, name, budget))


def _mean(metrics: Metrics, method: str, budget: int) -> float:
    number = _number(metrics, method, budget)
    return number.mean if number else -math.inf


def _row(metrics: Metrics, budget: int, first: str, second: str) -> Row:
    numbers = [_number(metrics, method, budget) for method in (first, second)]
    name, file = f"{title(first)} over {title(second)}", metrics.file("evaluate", f"{first}-{budget}")
    if None in numbers:
        return Row((budget, name, *numbers, None, None), file if numbers[0] else None)
    difference = (numbers[0].mean - numbers[1].mean) / math.hypot(numbers[0].std, numbers[1].std)
    return Row((budget, name, *numbers, Derived(difference, "{:+.1f} sd"), _verdict(difference)), file)


def _number(metrics: Metrics, method: str, budget: int) -> Number | None:
    found = metrics.evaluation(f"{method}-{budget}")
    return stored_number(found["protocols"]["held-out"], "mean_recall", KEY) if found else None


def _verdict(difference: float) -> str:
    if abs(difference) < 1:
        return "undecided"
    return "holds" if difference > 0 else "does not hold"
