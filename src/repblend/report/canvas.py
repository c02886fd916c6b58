"""How figures look, and how they are written: the same bytes on every run and machine with the locked packages."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import font_manager, pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repblend.store import write_bytes

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
    "legend.frameon": False, "figure.dpi": 100.0, "savefig.dpi": 200.0, "figure.constrained_layout.use": True,
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
    _keep_bundled_fonts()
    with pyplot.style.context(["default", STYLE]):
        figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), squeeze=False, **layout)
        try:
            yield figure, list(axes.flat)
        finally:
            pyplot.close(figure)


def _keep_bundled_fonts() -> None:
    """Forget the system's fonts: its DejaVu would be taken first, and another version has other outlines."""
    bundled = Path(matplotlib.get_data_path())
    fonts = font_manager.fontManager
    fonts.ttflist = [font for font in fonts.ttflist if Path(font.fname).is_relative_to(bundled)]


def say_not_run(axes: Axes) -> None:
    """Write 'not run' into axes that have nothing to show."""
    axes.grid(visible=False)
    axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", va="center", color=QUIET, style="italic")


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as SVG, PDF and PNG."""
    for kind, metadata in NO_DATES.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        write_bytes(folder / f"{name}.{kind}", buffer.getvalue())
