"""Decision regions: test images in the plane, each on the colour that a student gives it (the paper's overview figure).

The ground is coloured by the nearest point's predicted class; a ring marks a point that the student gets wrong.
"""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from repblend.report.canvas import WIDTH, canvas, save, say_not_run
from repblend.stages.context import Cell
from repblend.store import JSON
from repblend.ufc_report.metrics import UfcMetrics
from repblend.ufc_report.titles import SETS
from repblend.ufc_stages.context import StudentCell

PANELS = ("random", "real", "ufc")
GRID = 160
"""Points of the ground per side."""
GROUND, EDGE = 0.3, 1.06
"""Opacity of the ground, and how far it goes beyond the outermost point."""


def regions(metrics: UfcMetrics, folder: Path) -> None:
    """A row per budget, a panel per set, all with static labels and the first student."""
    budgets, student = metrics.params.budgets, metrics.params.validation.students[0]
    with canvas(len(budgets), len(PANELS), WIDTH, 3.1 * len(budgets)) as (figure, axes):
        for place, panel in enumerate(axes):
            budget, name = budgets[place // len(PANELS)], PANELS[place % len(PANELS)]
            panel.set_title(f"{SETS[name]}, {budget} per class", fontsize=8.5)
            _draw(panel, metrics.regions(StudentCell(Cell(name, budget), "static", student)))
        save(figure, folder, "regions")


def _draw(panel: Axes, found: JSON | None) -> None:
    panel.grid(visible=False)
    panel.set(xticks=[], yticks=[])
    if not found:
        say_not_run(panel)
        return
    plane, labels, predicted = (np.asarray(found[key]) for key in ("plane", "labels", "predicted"))
    colours = np.asarray(colormaps["tab10"].colors)
    half = EDGE * np.abs(plane).max()
    ground = predicted[nearest_point(plane, half)] % len(colours)
    panel.imshow(colours[ground], extent=(-half, half, -half, half), origin="lower", alpha=GROUND, aspect="equal")
    panel.scatter(*plane.T, s=7, c=colours[labels % len(colours)], linewidths=0)
    wrong = plane[labels != predicted]
    panel.scatter(*wrong.T, s=22, facecolors="none", edgecolors="black", linewidths=0.7)


def nearest_point(plane: np.ndarray, half: float) -> np.ndarray:
    """Return, for every place of a square grid from -half to half, the index of the nearest point, (GRID, GRID).

    Args:
        plane: (N, 2) points.
    """
    ticks = (np.arange(GRID) + 0.5) / GRID * 2 * half - half
    places = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 1, 2)
    return np.square(places - plane).sum(axis=-1).argmin(axis=1).reshape(GRID, GRID)
