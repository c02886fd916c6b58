"""Intra-modal similarity by iteration: the points of the paper's Figure 2, left, beside ours.

The two are not comparable in value: another data set, another embedding, and a formula that no source gives.
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from repblend.report.canvas import WIDTH, canvas, save, say_not_run
from repblend.report.metrics import Metrics
from repblend.report.published import Entry, read_published
from repblend.report.titles import colour, marker, title

METHODS = ("random", "lors", "repblend")
MEASURED = "intra_modal_similarity_img"


def published_similarity(metrics: Metrics, folder: Path) -> None:
    """Left the published points, hollow and dashed; right ours at the largest budget, filled and solid."""
    with canvas(1, 2, WIDTH, 3.2) as (figure, (published, ours)):
        _draw_published(published, metrics)
        _draw_ours(ours, metrics)
        for panel in (published, ours):
            panel.set_xlabel("iteration of distillation")
        published.set_ylabel("intra-modal similarity")
        figure.legend(handles=[Line2D([], [], color=colour(method), marker=marker(method), label=title(method))
                               for method in METHODS], loc="outside lower center", ncols=3)
        save(figure, folder, "published-similarity")


def _draw_published(panel: Axes, metrics: Metrics) -> None:
    entries = read_published(metrics.repository, "collapse")
    points: dict[str, dict[int | None, float]] = {}
    for entry in entries:
        if entry["quantity"] == "intra_modal_similarity" and entry["reading"] == "plot":
            points.setdefault(entry["method"], {})[entry["iteration"]] = float(entry["value"])
    for method, values in points.items():
        if None in values:  # a line, constant over all iterations
            panel.axhline(values[None], color=colour(method), linestyle="--", linewidth=1)
        else:
            panel.plot(*zip(*values.items(), strict=True), color=colour(method), marker=marker(method), linestyle="--",
                       markerfacecolor="white", linewidth=1)
    panel.margins(y=0.12)
    _write_ratios(panel, entries, points)
    panel.set_title("PUBLISHED: read off the paper's Figure 2")


def _write_ratios(panel: Axes, entries: list[Entry], points: dict[str, dict[int | None, float]]) -> None:
    """Write each concentration ratio beside the point that it belongs to; `start` is where both methods begin."""
    for entry in entries:
        if entry["quantity"] == "concentration_ratio":
            method = "repblend" if entry["method"] == "start" else entry["method"]
            at_end = entry["iteration"] > 0
            panel.annotate(f"CR {entry['value']}", (entry["iteration"], points[method][entry["iteration"]]),
                           xytext=(0, 7), textcoords="offset points", ha="right" if at_end else "left", fontsize=7.5)


def _draw_ours(panel: Axes, metrics: Metrics) -> None:
    budget = max(metrics.grid.budgets)
    panel.set_title(f"OURS: images, {budget} pairs")
    runs = {method: metrics.distillation(f"{method}-{budget}") for method in METHODS}
    for method, run in runs.items():
        if run:
            panel.plot(run["checkpoints"]["iteration"], run["checkpoints"][MEASURED], color=colour(method),
                       marker=marker(method))
    if not any(runs.values()):
        say_not_run(panel)
