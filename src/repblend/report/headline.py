"""The few numbers to read first: RepBlend at the largest budget against the baselines and the bounds.

All by the protocol that `evaluate.protocol` names: held-out, unless the parameters say otherwise.
"""

from dataclasses import dataclass

from repblend.report.metrics import Metrics
from repblend.report.titles import title
from repblend.store import JSON

METHOD = "repblend"


@dataclass(frozen=True)
class Statement:
    """A number and what it is."""

    value: str
    meaning: str


def statements(metrics: Metrics) -> list[Statement]:
    """Return what is to be said first; a comparison is left out where its other side was not run.

    Raises:
        ValueError: as `Metrics.evaluation`.
    """
    recalls = {budget: _mean_recall(metrics, f"{METHOD}-{budget}") for budget in metrics.grid.budgets}
    budget = max((budget for budget, recall in recalls.items() if recall is not None), default=None)
    if budget is None:
        return []
    ours, full = recalls[budget], _mean_recall(metrics, "full-data")
    protocol = _protocol(metrics.evaluation(f"{METHOD}-{budget}"))
    found = [Statement(f"{ours:.1f} %", f"mean recall of {title(METHOD)}, {budget} pairs, {protocol} protocol")]
    for method in metrics.methods:
        theirs = _mean_recall(metrics, f"{method}-{budget}")
        if theirs and method != METHOD:
            meaning = f"that of {title(method)} ({theirs:.1f}\N{NO-BREAK SPACE}%), same budget"
            found.append(Statement(f"{ours / theirs:.2f} ×", meaning))
    if full:
        meaning = f"of what the full training set gives ({full:.1f}\N{NO-BREAK SPACE}%)"
        found.append(Statement(f"{100 * ours / full:.0f} %", meaning))
    return found


def _mean_recall(metrics: Metrics, name: str) -> float | None:
    found = metrics.evaluation(name)
    return found["protocols"][_protocol(found)]["mean"]["mean_recall"] if found else None


def _protocol(evaluation: JSON) -> str:
    """The protocol that counts, as the metrics of a cell have it; the default is not written."""
    return evaluation.get("protocol", "held-out")
