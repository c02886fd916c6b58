"""Quantities by iteration of distillation: a row of panels per quantity, a column per budget, a colour per method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from repblend.report.canvas import WIDTH, canvas, save, say_not_run
from repblend.report.metrics import Metrics
from repblend.report.titles import colour, marker, title
from repblend.store import JSON

MODALITIES = {"images": "-", "texts": "--"}
"""Modality -> line style, where one panel shows both."""
MEAN_OVER = 9
"""Iterations of the centred mean that is drawn over the single ones."""
ROW_HEIGHT = 1.9
COLUMN_WIDTH = 3.6


@dataclass(frozen=True)
class Quantity:
    """A row of panels."""

    label: str
    draw: Callable[[Axes, JSON, str], None]
    """Draws into axes the metrics of one distillation by a method."""
    both_modalities: bool = False


def learning_curves(metrics: Metrics, folder: Path) -> None:
    """Matching loss, the same by modality, learned rates and recall on validation."""
    _draw(metrics, folder, "learning-curves", [
        Quantity("matching loss", _draw_loss),
        Quantity("matching loss\nby modality", _draw_loss_by_modality, both_modalities=True),
        Quantity("learned rate\n(per student step)", _draw_rates, both_modalities=True),
        Quantity("mean recall on\nvalidation (%)", _checkpoints("val_mean_recall")),
    ])


def collapse(metrics: Metrics, folder: Path) -> None:
    """Intra-modal similarity of both modalities and the modality gap (compare the paper's Figure 2)."""
    _draw(metrics, folder, "collapse", [
        Quantity("intra-modal\nsimilarity, images", _checkpoints("intra_modal_similarity_img")),
        Quantity("intra-modal\nsimilarity, texts", _checkpoints("intra_modal_similarity_txt")),
        Quantity("modality gap", _checkpoints("modality_gap")),
    ])


def _draw(metrics: Metrics, folder: Path, name: str, quantities: Sequence[Quantity]) -> None:
    budgets = metrics.grid.budgets
    width = max(WIDTH if len(budgets) > 1 else 0.65 * WIDTH, COLUMN_WIDTH * len(budgets))
    with canvas(len(quantities), len(budgets), width, ROW_HEIGHT * len(quantities) + 0.7, sharex="col",
                sharey="row") as (figure, axes):
        for place, panel in enumerate(axes):
            _draw_panel(panel, metrics, quantities[place // len(budgets)], budgets[place % len(budgets)])
        for panel, budget in zip(axes, budgets, strict=False):
            panel.set_title(f"{budget} pairs")
        for panel in axes[-len(budgets):]:
            panel.set_xlabel("iteration of distillation")
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        for panel, quantity in zip(axes[::len(budgets)], quantities, strict=True):
            panel.set_ylabel(quantity.label)
        figure.align_ylabels(axes[::len(budgets)])
        figure.legend(handles=_legend(metrics), loc="outside lower center", ncols=3)
        save(figure, folder, name)


def _draw_panel(panel: Axes, metrics: Metrics, quantity: Quantity, budget: int) -> None:
    runs = {method: metrics.distillation(f"{method}-{budget}") for method in metrics.learned}
    for method, run in runs.items():
        if run:
            quantity.draw(panel, run, method)
    if not any(runs.values()):
        say_not_run(panel)
    elif quantity.both_modalities:
        panel.legend(handles=[Line2D([], [], color="#444444", linestyle=dash, label=modality)
                              for modality, dash in MODALITIES.items()], ncols=2, loc="best")


def _legend(metrics: Metrics) -> list[Line2D]:
    methods = [Line2D([], [], color=colour(method), marker=marker(method), label=title(method))
               for method in metrics.learned]
    ring = Line2D([], [], linestyle="", marker="o", markersize=9, markerfacecolor="none", color="#444444",
                  label="iteration that was kept")
    return [*methods, ring]


def _draw_loss(panel: Axes, run: JSON, method: str) -> None:
    _draw_noisy(panel, run["curves"]["iteration"], run["curves"]["matching_loss"], method, "-")


def _draw_loss_by_modality(panel: Axes, run: JSON, method: str) -> None:
    for name, modality in (("matching_loss_img", "images"), ("matching_loss_txt", "texts")):
        _draw_noisy(panel, run["curves"]["iteration"], run["curves"][name], method, MODALITIES[modality])


def _draw_noisy(panel: Axes, iterations: list[int], values: list[float], method: str, dash: str) -> None:
    panel.plot(iterations, values, color=colour(method), alpha=0.2, linewidth=0.7)
    panel.plot(iterations, centred_mean(np.asarray(values), MEAN_OVER), color=colour(method), linestyle=dash)


def centred_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Return for each of (n,) values the mean of the `width` (odd) around it, of fewer near the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    first, last = np.maximum(place - width // 2, 0), np.minimum(place + width // 2 + 1, len(values))
    return (total[last] - total[first]) / (last - first)


def _draw_rates(panel: Axes, run: JSON, method: str) -> None:
    for name, modality in (("lr_img", "images"), ("lr_txt", "texts")):
        panel.plot(run["curves"]["iteration"], run["curves"][name], color=colour(method),
                   linestyle=MODALITIES[modality])


def _checkpoints(name: str) -> Callable[[Axes, JSON, str], None]:
    """Draw a quantity that is measured where the set is validated, with a ring at the iteration that was kept."""
    def draw(panel: Axes, run: JSON, method: str) -> None:
        iterations, values = run["checkpoints"]["iteration"], run["checkpoints"][name]
        panel.plot(iterations, values, color=colour(method), marker=marker(method))
        kept = values[iterations.index(run["chosen_iteration"])]
        panel.plot(run["chosen_iteration"], kept, "o", markersize=10, markerfacecolor="none", color=colour(method))
    return draw
