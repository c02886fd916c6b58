"""Compensators, and the images that they make of real ones."""

import base64
import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.image import imread

from repblend.report.canvas import QUIET, WIDTH, canvas, save, say_not_run
from repblend.stages.context import Cell
from repblend.store import JSON
from repblend.ufc_report.metrics import UfcMetrics
from repblend.ufc_report.titles import student_title

CELL = 0.85
"""Inches of a picture."""
NAME_CHARACTERS = 24


def _largest(metrics: UfcMetrics) -> JSON | None:
    """The pictures of UFC's set of the largest budget."""
    found = metrics.made_set(Cell("ufc", max(metrics.params.budgets)))
    return found["specimens"] if found else None


def compensators(metrics: UfcMetrics, folder: Path) -> None:
    """A row per teacher, a column per image index; mid-grey is no change."""
    names, found = metrics.params.teachers.architectures, _largest(metrics)
    shown = {(each["architecture"], each["image"]): each["png"] for each in found["compensators"]} if found else {}
    num_images = 1 + max((image for _, image in shown), default=0)
    with canvas(num_images, len(names), 1.8 * len(names), 1.8 * num_images + 0.4) as (figure, axes):
        for place, panel in enumerate(axes):
            image, teacher = divmod(place, len(names))
            _show(panel, shown.get((names[teacher], image)))
            if image == 0:
                panel.set_title(student_title(names[teacher]), fontsize=8.5)
            if teacher == 0:
                panel.set_ylabel(f"image {image}", fontsize=8.5)
        save(figure, folder, "compensators")


def integrated(metrics: UfcMetrics, folder: Path) -> None:
    """A row per slot: real images of the first classes, and what every compensator makes of them."""
    found = _largest(metrics)
    slots = sorted(found["slots"], key=lambda slot: slot["image"]) if found else []
    columns = len(slots[0]["png"]) if slots else 1
    with canvas(max(1, len(slots)), columns, WIDTH, CELL * max(1, len(slots)) + 0.3) as (figure, axes):
        if not slots:
            _show(axes[0], None)
        for row, slot in enumerate(slots):
            for column, png in enumerate(slot["png"]):
                _show(axes[row * columns + column], png)
            name = "real" if slot["architecture"] is None else f"+ {student_title(slot['architecture'])}"
            axes[row * columns].set_ylabel(name[:NAME_CHARACTERS], fontsize=7, rotation=0, ha="right", va="center",
                                           color="black" if slot["architecture"] is None else QUIET)
        save(figure, folder, "integrated")


def _show(panel: Axes, png: str | None) -> None:
    panel.grid(visible=False)
    panel.set(xticks=[], yticks=[])
    for side in panel.spines.values():
        side.set_visible(False)
    if png is None:
        say_not_run(panel)
    else:
        panel.imshow(imread(io.BytesIO(base64.b64decode(png)), format="png"), vmin=0, vmax=1)
