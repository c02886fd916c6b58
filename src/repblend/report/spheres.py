"""Images and texts of a set on a sphere, for three sets (the paper's Figure 1)."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from repblend.report.canvas import QUIET, WIDTH, canvas, save, say_not_run
from repblend.report.metrics import Metrics
from repblend.report.titles import title
from repblend.store import JSON

SETS = ("random", "lors", "repblend")
BUDGET = 100
"""Pairs of the sets that are drawn, if the grid has this budget; else its largest."""
MODALITIES = {"images": ("^", "#d62728", "image"), "texts": ("o", "#1f5fbf", "text")}
"""Modality -> marker, colour and word, as in the paper."""
BACK = 0.2
"""Opacity of points on the far side."""
SMALLEST = 1e-9
"""Length below which a direction is taken as none."""


def spheres(metrics: Metrics, folder: Path) -> None:
    """A sphere per set, near points solid and far ones faint; a set without a file says 'not run'."""
    budget = BUDGET if BUDGET in metrics.grid.budgets else max(metrics.grid.budgets)
    with canvas(1, len(SETS), WIDTH, 3.5) as (figure, panels):
        for panel, method in zip(panels, SETS, strict=True):
            panel.set_title(f"{title(method)}, {budget} pairs")
            _draw_sphere(panel, metrics.embedding(f"{method}-{budget}"))
        figure.legend(handles=[Line2D([], [], linestyle="", marker=shape, color=colour, label=word)
                               for shape, colour, word in MODALITIES.values()], loc="outside lower center", ncols=2)
        save(figure, folder, "spheres")


def _draw_sphere(panel: Axes, content: JSON | None) -> None:
    panel.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal")
    panel.set_axis_off()
    panel.add_patch(Circle((0, 0), 1, fill=False, edgecolor=QUIET, linewidth=0.8))
    if not content:
        say_not_run(panel)
        return
    points = {name: np.asarray(content["sphere"][name]) for name in MODALITIES}
    view = viewpoint(points["images"], points["texts"])
    for near in (False, True):  # far points first, so that near ones cover them
        for name, (shape, colour, _) in MODALITIES.items():
            seen = points[name] @ view.T
            side = seen[(seen[:, 2] >= 0) == near]
            panel.plot(side[:, 0], side[:, 1], shape, color=colour, markersize=4, markeredgewidth=0,
                       alpha=1.0 if near else BACK)


def viewpoint(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return the (3, 3) rotation to the axes of the page: right, up, and out of it towards the reader.

    One rule for every set: the line from the centroid of the (n, 3) texts to that of the (m, 3) images goes to the
    right, and the centroid of all points is turned to the reader as far as that allows.
    """
    right = _unit(images.mean(0) - texts.mean(0), np.zeros(3))
    out = _unit(np.concatenate([images, texts]).mean(0), right)
    return np.stack([right, np.cross(out, right), out])


def _unit(direction: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The part of a direction that is orthogonal to the unit vector `across`, or of an axis where there is none."""
    for candidate in (direction, *np.eye(3)):
        rest = candidate - (candidate @ across) * across
        if np.linalg.norm(rest) > SMALLEST:
            return rest / np.linalg.norm(rest)
    raise AssertionError("three axes cannot all be parallel to one vector")
