"""Mean recall of every method at every budget, between chance and the full training set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from repblend.report.canvas import QUIET, WIDTH, canvas, save
from repblend.report.metrics import PROTOCOLS, Metrics
from repblend.report.titles import colour, marker, title
from repblend.store import JSON

PANEL_TITLES = {"held-out": "Held-out: epoch chosen on validation", "faithful": "Faithful: epoch selected on test"}
GROUP_WIDTH = 0.86
"""Share of the distance from budget to budget that bars take."""
BESIDE = 6
"""Methods up to which the panels of both protocols fit beside each other."""


def mean_recall(metrics: Metrics, folder: Path) -> None:
    """Bars to the mean, a whisker of one standard deviation, a point per student; a panel per protocol."""
    wide = len(metrics.methods) > BESIDE
    shape = (len(PROTOCOLS), 1, WIDTH, 7.0) if wide else (1, len(PROTOCOLS), WIDTH, 4.2)
    with canvas(*shape, sharey=True) as (figure, panels):
        for panel, protocol in zip(panels, PROTOCOLS, strict=True):
            _draw_bounds(panel, metrics, protocol)
            draw_groups(panel, metrics, protocol, metrics.methods)
            panel.set_title(PANEL_TITLES[protocol])
        for panel in panels if wide else panels[:1]:
            panel.set_ylabel("mean of the six recalls (%)")
        figure.legend(handles=_legend(metrics), loc="outside lower center", ncols=4)
        save(figure, folder, "mean-recall")


def draw_groups(panel: Axes, metrics: Metrics, protocol: str, methods: Sequence[str]) -> None:
    """Draw a group of bars per budget, a bar per method; a bar that was not run says so."""
    budgets = metrics.grid.budgets
    width = GROUP_WIDTH / max(1, len(methods))
    for group, budget in enumerate(budgets):
        for place, method in enumerate(methods):
            centre = group + (place - (len(methods) - 1) / 2) * width
            found = metrics.evaluation(f"{method}-{budget}")
            if found:
                _draw_bar(panel, centre, width, found["protocols"][protocol], method)
                _write_mean(panel, centre, found["protocols"][protocol], 90 if len(methods) > BESIDE else 0)
            else:
                panel.text(centre, 0.6, "not run", rotation=90, ha="center", va="bottom", fontsize=7.5, color=QUIET)
    panel.set_xticks(range(len(budgets)), [f"{budget} pairs" for budget in budgets])
    panel.tick_params(axis="x", length=0, labelsize=9)
    panel.set_xlim(-0.5, len(budgets) - 0.5)
    panel.set_ylim(bottom=0)


def _draw_bar(panel: Axes, centre: float, width: float, protocol: JSON, method: str) -> None:
    values = [seed["mean_recall"] for seed in protocol["seeds"]]
    mean, std = protocol["mean"]["mean_recall"], protocol["std"]["mean_recall"]
    panel.bar(centre, mean, 0.88 * width, color=colour(method), linewidth=0)
    panel.errorbar(centre, mean, std, color="black", linewidth=1, capsize=2.5)
    beside = [centre + 0.5 * width * ((rank + 0.5) / len(values) - 0.5) for rank in range(len(values))]
    panel.plot(beside, values, marker(method), markersize=2.8, color="white", markeredgecolor="black",
               markeredgewidth=0.6)


def _write_mean(panel: Axes, centre: float, protocol: JSON, rotation: float) -> None:
    """Write a bar's mean above it; upright where bars are narrow."""
    mean, std = protocol["mean"]["mean_recall"], protocol["std"]["mean_recall"]
    highest = max(mean + std, *(seed["mean_recall"] for seed in protocol["seeds"]))
    panel.annotate(f"{mean:.1f}", (centre, highest), xytext=(0, 2.5), textcoords="offset points", ha="center",
                   va="bottom", fontsize=7.5, rotation=rotation)


def _draw_bounds(panel: Axes, metrics: Metrics, protocol: str) -> None:
    full, chance = metrics.evaluation("full-data"), metrics.chance()
    if full:
        panel.axhline(full["protocols"][protocol]["mean"]["mean_recall"], color=colour("full-data"), linewidth=1.1,
                      linestyle="--")
    if chance:
        panel.axhline(chance["expected"]["mean_recall"], color=colour("chance"), linewidth=1.3, linestyle=":")


def method_legend(titles: Mapping[str, str]) -> list[Artist]:
    """Return a coloured patch per method, with the title that it has here."""
    return [Patch(color=colour(method), label=shown) for method, shown in titles.items()]


def _legend(metrics: Metrics) -> list[Artist]:
    bars = method_legend({method: title(method) for method in metrics.methods})
    lines = [Line2D([], [], color=colour(name), linestyle=dash, linewidth=1.2, label=title(name))
             for name, dash in (("full-data", "--"), ("chance", ":"))]
    return [*bars, *lines]
