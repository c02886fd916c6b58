"""Every figure by its file name, and those by iteration of distillation: losses, rates and recall on validation
(probably Figure 4), measures of collapse (Figure 2, left), and the published points of Figure 2 beside ours.

To add a figure, put a function from records and a folder into `FIGURES`, and show it in `paper/report.ipynb`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from repblend.records.outputs import Course
from repblend.report.blending import WITH, WITHOUT, arms
from repblend.report.carried import carried
from repblend.report.drawing import WIDTH, canvas, draw_plot, line_legend, save, say_not_run
from repblend.report.encoder_pairs import encoder_pairs
from repblend.report.first import recall_plot
from repblend.report.grid_records import GridRecords
from repblend.report.pictures import similarity, specimens, spheres
from repblend.report.published import read_published
from repblend.report.studies import ablation, noise, sensitivity
from repblend.titles import colour, marker

# Quantities by iteration of distillation: a row of panels per quantity, a column per budget, a colour per method.

MODALITIES = {"images": "-", "texts": "--"}
"""Modality -> line style, where one panel shows both."""
MEAN_OVER = 9
"""Iterations of the centred mean that is drawn over the single ones."""
ROW_HEIGHT = 1.9
COLUMN_WIDTH, NARROW_WIDTH = 3.6, 2.3
"""Inches, of a panel among a few and among many."""


@dataclass(frozen=True)
class Quantity:
    """A row of panels: some of the curves, or what is measured where the set is validated."""

    label: str
    curves: Mapping[str, str] = field(default_factory=dict)
    """Names in `Curves` -> line style."""
    smoothed: bool = False
    """Whether the curves are drawn as centred means over the single iterations."""
    checkpoint: str | None = None
    """Name in `Checkpoints`."""


def learning_curves(records: GridRecords, folder: Path) -> None:
    """Matching loss, the same by modality, learned rates and recall on validation."""
    _draw(records, folder, "learning-curves", [
        Quantity("matching loss", {"matching_loss": "-"}, smoothed=True),
        Quantity("matching loss\nby modality", _by_modality("matching_loss"), smoothed=True),
        Quantity("learned rate\n(per student step)", _by_modality("lr")),
        Quantity("mean recall on\nvalidation (%)", checkpoint="val_mean_recall"),
    ])


def collapse(records: GridRecords, folder: Path) -> None:
    """Intra-modal similarity of both modalities and the modality gap (compare Figure 2)."""
    _draw(records, folder, "collapse", [
        Quantity("intra-modal\nsimilarity, images", checkpoint="intra_modal_similarity_img"),
        Quantity("intra-modal\nsimilarity, texts", checkpoint="intra_modal_similarity_txt"),
        Quantity("modality gap", checkpoint="modality_gap"),
    ])


def _by_modality(name: str) -> dict[str, str]:
    return {f"{name}_img": MODALITIES["images"], f"{name}_txt": MODALITIES["texts"]}


def _draw(records: GridRecords, folder: Path, name: str, quantities: Sequence[Quantity]) -> None:
    budgets = records.grid.budgets
    columns = [Compared(f"{budget} pairs", {method: f"{method}-{budget}" for method in records.learned})
               for budget in budgets]
    width = max(WIDTH if len(budgets) > 1 else 0.65 * WIDTH, COLUMN_WIDTH * len(budgets))
    _draw_columns(records, folder / name, quantities, columns, width)


def blending(records: GridRecords, folder: Path) -> None:
    """Recall and what collapse raises, with blending and without: a column for each regime and budget."""
    quantities = [Quantity("mean recall on\nvalidation (%)", checkpoint="val_mean_recall"),
                  Quantity("intra-modal\nsimilarity, images", checkpoint="intra_modal_similarity_img"),
                  Quantity("intra-modal\nsimilarity, texts", checkpoint="intra_modal_similarity_txt"),
                  Quantity("concentration\nratio, images", checkpoint="concentration_ratio_img"),
                  Quantity("modality gap", checkpoint="modality_gap")]
    columns = [Compared(f"{each.regime},\n{each.budget} pairs", {WITHOUT: each.without, WITH: each.blended})
               for each in arms(records)]
    _draw_columns(records, folder / "blending", quantities, columns, max(WIDTH, NARROW_WIDTH * len(columns)))


class Compared(NamedTuple):
    """A column of panels: distillations that are drawn together."""

    title: str
    cells: Mapping[str, str]
    """Method -> cell; the same methods in every column."""


def _draw_columns(records: GridRecords, file: Path, quantities: Sequence[Quantity], columns: Sequence[Compared],
                  width: float) -> None:
    """Draw a row of panels for each quantity, `width` inches wide."""
    with canvas(len(quantities), len(columns), width, ROW_HEIGHT * len(quantities) + 0.7, sharex="col",
                sharey="row") as (figure, axes):
        for panel, (quantity, column) in zip(axes, itertools.product(quantities, columns), strict=True):
            _draw_panel(panel, quantity, _courses(records, column.cells))
        for panel, column in zip(axes, columns, strict=False):
            panel.set_title(column.title)
        for panel in axes[-len(columns):]:
            panel.set_xlabel("iteration of distillation" if width >= COLUMN_WIDTH * len(columns) else "iteration")
            panel.xaxis.set_major_locator(MaxNLocator(min(6, round(1.7 * width / len(columns))), integer=True))
        for panel, quantity in zip(axes[::len(columns)], quantities, strict=True):
            panel.set_ylabel(quantity.label)
        figure.align_ylabels(axes[::len(columns)])
        figure.legend(handles=[*line_legend(columns[0].cells), _ring()], loc="outside lower center", ncols=3)
        save(figure, file.parent, file.name)


def _ring() -> Line2D:
    return Line2D([], [], linestyle="", marker="o", markersize=9, markerfacecolor="none", color="#444444",
                  label="iteration that was kept")


def _courses(records: GridRecords, cells: Mapping[str, str]) -> dict[str, Course]:
    """Return the courses of the cells that were distilled, by method."""
    return {method: course for method, cell in cells.items() if (course := records.course(cell))}


def _draw_panel(panel: Axes, quantity: Quantity, courses: Mapping[str, Course]) -> None:
    """Draw every distillation; what is measured at checkpoints gets a ring at the iteration that was kept."""
    for method, course in courses.items():
        shade = colour(method)
        for name, dash in quantity.curves.items():
            values = np.asarray(getattr(course.curves, name))
            if quantity.smoothed:
                panel.plot(course.curves.iteration, values, color=shade, alpha=0.2, linewidth=0.7)
                values = centred_mean(values, MEAN_OVER)
            panel.plot(course.curves.iteration, values, color=shade, linestyle=dash)
        if quantity.checkpoint:
            iterations, measured = course.checkpoints.iteration, getattr(course.checkpoints, quantity.checkpoint)
            panel.plot(iterations, measured, color=shade, marker=marker(method))
            kept = measured[iterations.index(course.chosen_iteration)]
            panel.plot(course.chosen_iteration, kept, "o", markersize=10, markerfacecolor="none", color=shade)
    if not courses:
        say_not_run(panel)
    elif len(quantity.curves) > 1:
        panel.legend(handles=[Line2D([], [], color="#444444", linestyle=dash, label=modality)
                              for modality, dash in MODALITIES.items()], ncols=2, loc="best")


def centred_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Return for each of (n,) values the mean of the `width` (odd) around it, of fewer near the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    first, last = np.maximum(place - width // 2, 0), np.minimum(place + width // 2 + 1, len(values))
    return (total[last] - total[first]) / (last - first)


# Intra-modal similarity by iteration: the points of the paper's Figure 2, left, beside ours.
#
# The two are not comparable in value: another data set, another embedding, and a formula that no source gives.

METHODS = ("random", "lors", "repblend")


def published_similarity(records: GridRecords, folder: Path) -> None:
    """Left the published points, hollow and dashed; right ours at the largest budget, filled and solid."""
    with canvas(1, 2, WIDTH, 3.2) as (figure, (published, ours)):
        _draw_published(published, records)
        budget = max(records.grid.budgets)
        ours.set_title(f"OURS: images, {budget} pairs")
        courses = {method: course for method in METHODS if (course := records.course(f"{method}-{budget}"))}
        for method, course in courses.items():
            ours.plot(course.checkpoints.iteration, course.checkpoints.intra_modal_similarity_img,
                      color=colour(method), marker=marker(method))
        if not courses:
            say_not_run(ours)
        for panel in (published, ours):
            panel.set_xlabel("iteration of distillation")
        published.set_ylabel("intra-modal similarity")
        figure.legend(handles=line_legend(METHODS), loc="outside lower center", ncols=3)
        save(figure, folder, "published-similarity")


def _draw_published(panel: Axes, records: GridRecords) -> None:
    entries = read_published(records.repository, "collapse")
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
    for entry in entries:  # a concentration ratio beside its point; `start` is where both methods begin
        if entry["quantity"] == "concentration_ratio":
            method = "repblend" if entry["method"] == "start" else entry["method"]
            panel.annotate(f"CR {entry['value']}", (entry["iteration"], points[method][entry["iteration"]]),
                           xytext=(0, 7), textcoords="offset points", fontsize=7.5,
                           ha="right" if entry["iteration"] > 0 else "left")
    panel.margins(y=0.12)
    panel.set_title("PUBLISHED: read off the paper's Figure 2")


FIGURES: dict[str, Callable[[GridRecords, Path], None]] = {
    "mean-recall": lambda records, folder: draw_plot(recall_plot(records), folder),
    "learning-curves": learning_curves, "specimens": specimens, "similarity": similarity,
    "collapse": collapse, "ablation": ablation, "sensitivity": sensitivity, "noise": noise, "spheres": spheres,
    "carried": carried, "blending": blending,
    "encoder-pairs": encoder_pairs,
    "published-similarity": published_similarity}
"""Every figure by its file name."""
