"""Figures of the report, each from stored metrics alone."""

import base64
import io
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from repblend.report.canvas import canvas, save
from repblend.report.metrics import Metrics
from repblend.report.titles import colour, title
from repblend.store import JSON

LINE_STYLES = ("-", "--", ":", "-.")
"""One per budget, from the largest to the smallest."""


def _distillations(metrics: Metrics) -> Iterator[tuple[str, int, str, JSON]]:
    """Method, budget, line style and metrics of every distillation that was run."""
    for style, budget in zip(LINE_STYLES, sorted(metrics.grid.budgets, reverse=True), strict=False):
        for method in metrics.grid.distilled:
            found = metrics.distillation(f"{method}-{budget}")
            if found:
                yield method, budget, style, found


def mean_recall(metrics: Metrics, folder: Path) -> None:
    """Held-out mean recall of every method by budget; a point per evaluation seed, bars to the mean."""
    budgets, methods = metrics.grid.budgets, (*metrics.grid.coresets, *reversed(metrics.grid.distilled))
    with canvas(1, 1, 7.0, 3.4) as (figure, (axes,)):
        for place, method in enumerate(methods):
            for group, budget in enumerate(budgets):
                found = metrics.evaluation(f"{method}-{budget}")
                if found:
                    x = group + (place - (len(methods) - 1) / 2) * 0.16
                    _bar(axes, x, found["protocols"]["held-out"], colour(method))
        _reference(axes, metrics)
        axes.set_xlim(-0.5, len(budgets) - 0.5)
        axes.set_xticks(range(len(budgets)), [f"{budget} pairs" for budget in budgets])
        axes.set_ylabel("mean recall, percent")
        axes.grid(axis="x", visible=False)
        patches = [Patch(color=colour(method), label=title(method)) for method in methods]
        figure.legend(handles=[*patches, *axes.get_legend_handles_labels()[0]], loc="outside right center", fontsize=8)
        save(figure, folder, "mean-recall")


def _bar(axes: Axes, x: float, protocol: JSON, shade: str) -> None:
    axes.bar(x, protocol["mean"]["mean_recall"], width=0.14, color=shade)
    seeds = [seed["mean_recall"] for seed in protocol["seeds"]]
    axes.plot([x] * len(seeds), seeds, "o", color="black", markersize=2.0, alpha=0.6)


def _reference(axes: Axes, metrics: Metrics) -> None:
    full, chance = metrics.evaluation("full-data"), metrics.chance()
    if full:
        axes.axhline(full["protocols"]["held-out"]["mean"]["mean_recall"], color=colour("full-data"), linewidth=1.0,
                     linestyle="--", label=title("full-data"))
    if chance:
        axes.axhline(chance["expected"]["mean_recall"], color=colour("chance"), linewidth=1.0, linestyle=":",
                     label=title("chance"))


def learning_curves(metrics: Metrics, folder: Path) -> None:
    """Matching loss (each point the mean of ten iterations), validation recall and learned rates by iteration."""
    with canvas(2, 2, 7.5, 5.2) as (figure, (loss, recall, image_rate, text_rate)):
        for method, _, style, found in _distillations(metrics):
            curves, checks = found["curves"], found["checkpoints"]
            line = {"color": colour(method), "linestyle": style, "linewidth": 1.2}
            loss.plot(curves["iteration"], _smooth(curves["matching_loss"]), **line)
            image_rate.plot(curves["iteration"], curves["lr_img"], **line)
            text_rate.plot(curves["iteration"], curves["lr_txt"], **line)
            recall.plot(checks["iteration"], checks["val_mean_recall"], marker=".", **line)
            recall.plot(found["chosen_iteration"], max(checks["val_mean_recall"]), "o", color=colour(method),
                        markerfacecolor="none")
        for axes, label in ((loss, "matching loss"), (recall, "val. mean recall, %"),
                            (image_rate, "learned rate, image head"), (text_rate, "learned rate, text head")):
            axes.set_xlabel("iteration")
            axes.set_ylabel(label)
        _legend(figure, metrics)
        save(figure, folder, "learning-curves")


def _smooth(values: list[float], width: int = 10) -> np.ndarray:
    """The mean of each value and up to nine before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _legend(figure: object, metrics: Metrics) -> None:
    """One legend for method (colour) and budget (line style)."""
    handles = [Line2D([], [], color=colour(method), label=title(method)) for method in metrics.grid.distilled]
    handles += [Line2D([], [], color="black", linestyle=style, label=f"{budget} pairs") for style, budget in
                zip(LINE_STYLES, sorted(metrics.grid.budgets, reverse=True), strict=False)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)


def collapse(metrics: Metrics, folder: Path) -> None:
    """Intra-modal similarity of both modalities and the modality gap by iteration (compare the paper's Figure 2)."""
    panels = (("intra_modal_similarity_img", "intra-modal similarity, images"),
              ("intra_modal_similarity_txt", "intra-modal similarity, texts"), ("modality_gap", "modality gap"))
    with canvas(1, 3, 9.0, 3.0) as (figure, axes):
        for method, _, style, found in _distillations(metrics):
            checks = found["checkpoints"]
            for panel, (name, _) in zip(axes, panels, strict=True):
                panel.plot(checks["iteration"], checks[name], color=colour(method), linestyle=style, linewidth=1.2)
        for panel, (_, label) in zip(axes, panels, strict=True):
            panel.set_xlabel("iteration")
            panel.set_ylabel(label)
        _legend(figure, metrics)
        save(figure, folder, "collapse")


def specimens(metrics: Metrics, folder: Path) -> None:
    """What some pairs of the largest RepBlend set started as and became, and the captions nearest to their texts."""
    method, budget = metrics.grid.distilled[0], max(metrics.grid.budgets)
    found = metrics.specimens(f"{method}-{budget}")
    pairs = found["pairs"] if found else []
    with canvas(2, max(1, len(pairs)), 10.0, 3.6) as (figure, axes):
        for panel in axes:
            panel.set_axis_off()
        for column, pair in enumerate(pairs):
            _image(axes[column], pair["initial_png"], "start: " + pair["initial_caption"])
            _image(axes[len(pairs) + column], pair["distilled_png"],
                   "; ".join(near["caption"] for near in pair["nearest_captions"]))
        if not pairs:
            axes[0].set_title("not run")
        save(figure, folder, "specimens")


def _image(axes: Axes, png: str, caption: str) -> None:
    axes.imshow(imread(io.BytesIO(base64.b64decode(png)), format="png"), interpolation="nearest")
    axes.set_title(textwrap.fill(caption, 17), fontsize=6.5, y=-0.1, verticalalignment="top")


def similarity(metrics: Metrics, folder: Path) -> None:
    """The learned similarity matrices of the largest sets, on a scale from 0 to 1 (the paper's Figure 2, right)."""
    budget = max(metrics.grid.budgets)
    found = {method: metrics.specimens(f"{method}-{budget}") for method in metrics.grid.distilled}
    with canvas(1, len(found), 3.6 * len(found) + 0.6, 3.6) as (figure, axes):
        for panel, (method, content) in zip(axes, found.items(), strict=True):
            panel.set_title(f"{title(method)}, {budget} pairs" + ("" if content else ": not run"))
            panel.set_xlabel("text")
            panel.set_ylabel("image")
            panel.grid(visible=False)
            if content:
                drawn = panel.imshow(np.array(content["similarity"]), vmin=0, vmax=1, cmap="Greys",
                                     interpolation="nearest")
                figure.colorbar(drawn, ax=panel, shrink=0.8)
        save(figure, folder, "similarity")


FIGURES: dict[str, Callable[[Metrics, Path], None]] = {
    "mean-recall": mean_recall, "learning-curves": learning_curves, "specimens": specimens, "similarity": similarity,
    "collapse": collapse}
"""Every figure by its file name."""
