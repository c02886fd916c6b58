"""The figures of the unimodal report, drawn from records alone: accuracy, generation, pictures, decision regions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.image import imread

from repblend.grid import Cell
from repblend.report.drawing import QUIET, WIDTH, canvas, draw_plot, save, say_not_run
from repblend.ufc.records import DecisionRegions, Generated
from repblend.ufc.report.first import accuracy_plot, largest
from repblend.ufc.report.ufc_records import SETS, UfcRecords, student_title
from repblend.ufc.stages.pipeline import StudentCell

# How compensators were learned.

LOSSES = {"cross_entropy": "cross-entropy", "bn": "BatchNorm statistics"}


def generation(records: UfcRecords, folder: Path) -> None:
    """Both parts of the objective by iteration, means over compensators; a line per teacher."""
    names = records.params.teachers.architectures
    with canvas(1, len(LOSSES), WIDTH, 3.0) as (figure, panels):
        for panel, (key, words) in zip(panels, LOSSES.items(), strict=True):
            panel.set(title=words, xlabel="iteration", yscale="log")
            found = {name: content for name in names if (content := records.find(Generated, name))}
            for name, content in found.items():
                panel.plot(content.curves.iteration, getattr(content.curves, key), label=student_title(name))
            if not found:
                say_not_run(panel)
        if panels[0].lines:
            figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        save(figure, folder, "generation")


# Compensators, and the images that they make of real ones.

CELL = 0.85
"""Inches of a picture."""
NAME_CHARACTERS = 24


def compensators(records: UfcRecords, folder: Path) -> None:
    """A row per teacher, a column per image index; mid-grey is no change."""
    names, (pictures, made) = records.params.teachers.architectures, largest(records)
    shown = {(each.architecture, each.image): made / each.png for each in pictures.compensators} if pictures else {}
    num_images = 1 + max((image for _, image in shown), default=0)
    with canvas(num_images, len(names), 1.8 * len(names), 1.8 * num_images + 0.4) as (figure, axes):
        for place, panel in enumerate(axes):
            image, teacher = divmod(place, len(names))
            path = shown.get((names[teacher], image))
            _show(panel, imread(path) if path else None)
            if image == 0:
                panel.set_title(student_title(names[teacher]), fontsize=8.5)
            if teacher == 0:
                panel.set_ylabel(f"image {image}", fontsize=8.5)
        save(figure, folder, "compensators")


def integrated(records: UfcRecords, folder: Path) -> None:
    """A row per slot: real images of the first classes, and what every compensator makes of them."""
    pictures, made = largest(records)
    slots = sorted(pictures.slots, key=lambda slot: slot.image) if pictures else []
    columns = pictures.num_classes if pictures else 1
    with canvas(max(1, len(slots)), columns, WIDTH, CELL * max(1, len(slots)) + 0.3) as (figure, axes):
        if not slots:
            _show(axes[0], None)
        for row, slot in enumerate(slots):
            for column, picture in enumerate(np.split(imread(made / slot.png), columns, axis=1)):
                _show(axes[row * columns + column], picture)
            name = "real" if slot.architecture is None else f"+ {student_title(slot.architecture)}"
            axes[row * columns].set_ylabel(name[:NAME_CHARACTERS], fontsize=7, rotation=0, ha="right", va="center",
                                           color="black" if slot.architecture is None else QUIET)
        save(figure, folder, "integrated")


def _show(panel: Axes, pixels: np.ndarray | None) -> None:
    panel.grid(visible=False)
    panel.set(xticks=[], yticks=[])
    for side in panel.spines.values():
        side.set_visible(False)
    if pixels is None:
        say_not_run(panel)
    else:
        panel.imshow(pixels, vmin=0, vmax=1)


# Decision regions: test images in the plane, each on the colour that a student gives it (the paper's overview figure).
#
# The ground is coloured by the nearest point's predicted class; a ring marks a point that the student gets wrong.

PANELS = ("random", "real", "ufc")
GRID = 160
"""Points of the ground per side."""
GROUND, EDGE = 0.3, 1.06
"""Opacity of the ground, and how far it goes beyond the outermost point."""


def regions(records: UfcRecords, folder: Path) -> None:
    """A row per budget, a panel per set, all with static labels and the first student."""
    budgets, student = records.params.budgets, records.params.validation.students[0]
    colours = colormaps["tab10"](range(10))[:, :3]
    with canvas(len(budgets), len(PANELS), WIDTH, 3.1 * len(budgets)) as (figure, axes):
        for place, panel in enumerate(axes):
            budget, name = budgets[place // len(PANELS)], PANELS[place % len(PANELS)]
            panel.set_title(f"{SETS[name]}, {budget} per class", fontsize=8.5)
            cell = StudentCell(Cell(name, budget), "static", student)
            panel.grid(visible=False)
            panel.set(xticks=[], yticks=[])
            if not records.find(DecisionRegions, cell):
                say_not_run(panel)
                continue
            x, y, labels, predicted = (np.asarray(column) for column in zip(*records.plane(cell), strict=True))
            plane = np.stack([x, y], axis=1)  # (N, 2)
            half = EDGE * np.abs(plane).max()
            ground = predicted[nearest_point(plane, half)] % len(colours)
            panel.imshow(colours[ground], extent=(-half, half, -half, half), origin="lower", alpha=GROUND,
                         aspect="equal")
            panel.scatter(*plane.T, s=7, c=colours[labels % len(colours)], linewidths=0)
            wrong = plane[labels != predicted]
            panel.scatter(*wrong.T, s=22, facecolors="none", edgecolors="black", linewidths=0.7)
        save(figure, folder, "regions")


def nearest_point(plane: np.ndarray, half: float) -> np.ndarray:
    """Return, for every place of a square grid from -half to half, the index of the nearest point, (GRID, GRID).

    Args:
        plane: (N, 2) points.
    """
    ticks = (np.arange(GRID) + 0.5) / GRID * 2 * half - half
    places = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 1, 2)
    return np.square(places - plane).sum(axis=-1).argmin(axis=1).reshape(GRID, GRID)


FIGURES: dict[str, Callable[[UfcRecords, Path], None]] = {
    "accuracy": lambda records, folder: draw_plot(accuracy_plot(records), folder),
    "generation": generation, "compensators": compensators, "integrated": integrated,
    "regions": regions}
"""Every figure by its file name; each draws into a folder."""
