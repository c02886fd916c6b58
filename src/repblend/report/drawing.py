"""How figures look, how they are written, and bars: the same bytes on every run and machine with the locked packages.

A figure is a function from records and a folder; it draws into a `canvas` and ends with `save`.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager, pyplot
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from repblend.records.results import Protocol
from repblend.report.grid_records import GridRecords, by_name
from repblend.report.screen import Plot
from repblend.store import write_bytes
from repblend.titles import colour, marker, title

matplotlib.use("agg")

WIDTH = 9.0
"""Inches: the width of the page's text."""
QUIET = "#666666"
"""Colour of what is not data."""
STYLE = {
    "svg.hashsalt": "repblend", "svg.fonttype": "path", "pdf.fonttype": 42, "image.interpolation": "none",
    "font.family": "DejaVu Sans", "font.size": 9.0, "axes.titlesize": 9.5, "axes.titleweight": "bold",
    "xtick.labelsize": 8.0, "ytick.labelsize": 8.0, "legend.fontsize": 8.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": QUIET, "axes.axisbelow": True,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#e3e3e3", "lines.linewidth": 1.5, "lines.markersize": 4.0,
    "legend.frameon": False, "text.parse_math": False,
    "figure.dpi": 100.0, "savefig.dpi": 200.0, "figure.constrained_layout.use": True,
}
NO_DATES = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
"""File format -> metadata that would change from run to run, left out."""


@contextmanager
def canvas(rows: int, columns: int, width: float, height: float, **layout: Any) -> Iterator[tuple[Figure, list]]:
    """Yield a figure of so many inches and its axes in reading order; it is closed afterwards.

    The style starts from matplotlib's own defaults and fonts, so those of the machine change nothing. `layout` is what
    `pyplot.subplots` takes besides (shared axes, ratios of widths).
    """
    fonts, bundled = font_manager.fontManager, Path(matplotlib.get_data_path())
    # The system's DejaVu would be taken first, and another version has other outlines.
    fonts.ttflist = [font for font in fonts.ttflist if Path(font.fname).is_relative_to(bundled)]
    with pyplot.style.context(["default", STYLE]):
        figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), squeeze=False, **layout)
        try:
            yield figure, list(axes.flat)
        finally:
            pyplot.close(figure)


def say_not_run(axes: Axes) -> None:
    """Write 'not run' into axes that have nothing to show."""
    axes.grid(visible=False)
    axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", va="center", color=QUIET, style="italic")


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as SVG, PDF and PNG, laid out once for all."""
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    for kind, metadata in NO_DATES.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        write_bytes(folder / f"{name}.{kind}", buffer.getvalue())


# What sets reach by budget, and bars by budget.

GROUP_WIDTH = 0.86
"""Share of the distance from budget to budget that bars take."""
BESIDE = 6
"""Methods up to which numbers above bars fit beside each other."""


def draw_plot(plot: Plot, folder: Path) -> None:
    """A panel per way of measuring: lines through means, bands of one standard deviation, bounds as lines."""
    with canvas(1, len(plot.panels), WIDTH, 5.0, sharey=True) as (figure, axes):
        for place, (panel, shown) in enumerate(zip(axes, plot.panels, strict=True)):
            for level in shown.levels:
                panel.axhline(level.number.mean, color=QUIET, linewidth=1.1, linestyle=":" if level.dotted else "--")
                panel.annotate(f"{level.title} {level.number}", (0.01, level.number.mean), xytext=(0, 2),
                               textcoords="offset points", xycoords=("axes fraction", "data"), fontsize=7.5,
                               color=QUIET)
            for line in shown.series:
                x = [plot.across(point.budget) for point in line.points]
                mean, std = ([getattr(point.number, name) or 0.0 for point in line.points] for name in ("mean", "std"))
                panel.errorbar(x, mean, std, color=line.colour, linewidth=0, elinewidth=1, capsize=2)
                panel.fill_between(x, *([value + sign * spread for value, spread in zip(mean, std, strict=True)]
                                        for sign in (-1, 1)), color=line.colour, alpha=0.12, linewidth=0)
                panel.plot(x, mean, color=line.colour, marker="o", linestyle="--" if line.dashed else "-",
                           label="_" * (place > 0) + line.title)
            if not shown.series:
                say_not_run(panel)
            panel.set(title=shown.title, xlabel=plot.unit, xlim=(0, 100), ylim=plot.range())
            panel.set_xticks([plot.across(budget) for budget in plot.budgets], [f"{each:,}" for each in plot.budgets])
        axes[0].set_ylabel(plot.label)
        if plot.panels[0].series:
            figure.legend(loc="outside lower center", ncols=4)
        save(figure, folder, plot.name)


def draw_groups(panel: Axes, records: GridRecords, protocol: str, methods: Sequence[str],
                budgets: Sequence[int] | None = None, variant: str = "") -> None:
    """Draw a group of bars per budget, a bar per method; in the place of one that was not run stands 'not run'.

    Args:
        budgets: by default the grid's.
        variant: of every method, with its plus sign.
    """
    budgets = records.grid.budgets if budgets is None else budgets
    width = GROUP_WIDTH / max(1, len(methods))
    for group, budget in enumerate(budgets):
        for place, method in enumerate(methods):
            centre = group + (place - (len(methods) - 1) / 2) * width
            found = records.evaluation(f"{method}{variant}-{budget}")
            if found:
                _draw_bar(panel, centre, width, by_name(found.protocols, protocol), method,
                          rotation=90 if len(methods) > BESIDE else 0)
            else:
                panel.text(centre, 0.6, "not run", rotation=90, ha="center", va="bottom", fontsize=7.5, color=QUIET)
    panel.set_xticks(range(len(budgets)), [f"{budget} pairs" for budget in budgets])
    panel.tick_params(axis="x", length=0, labelsize=9)
    panel.set_xlim(-0.5, len(budgets) - 0.5)
    panel.set_ylim(bottom=0)


def _draw_bar(panel: Axes, centre: float, width: float, statistics: Protocol, method: str, rotation: float) -> None:
    """Draw a bar with its students beside the middle, and write its mean above; upright where bars are narrow."""
    values = [seed.mean_recall for seed in statistics.seeds]
    mean, std = statistics.mean.mean_recall, statistics.std.mean_recall
    panel.bar(centre, mean, 0.88 * width, color=colour(method), linewidth=0)
    panel.errorbar(centre, mean, std, color="black", linewidth=1, capsize=2.5)
    beside = [centre + 0.5 * width * ((rank + 0.5) / len(values) - 0.5) for rank in range(len(values))]
    panel.plot(beside, values, marker(method), markersize=2.8, color="white", markeredgecolor="black",
               markeredgewidth=0.6)
    panel.annotate(f"{mean:.1f}", (centre, max(mean + std, *values)), xytext=(0, 2.5), textcoords="offset points",
                   ha="center", va="bottom", fontsize=7.5, rotation=rotation)


def line_legend(methods: Iterable[str]) -> list[Artist]:
    """Return a line with its marker per method."""
    return [Line2D([], [], color=colour(method), marker=marker(method), label=title(method)) for method in methods]


def method_legend(titles: Mapping[str, str]) -> list[Artist]:
    """Return a coloured patch per method, with the title that it has here."""
    return [Patch(color=colour(method), label=shown) for method, shown in titles.items()]
