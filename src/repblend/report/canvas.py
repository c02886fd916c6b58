"""How figures look, and how they are written: the same bytes on every run and machine with the locked packages."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot  # noqa: E402  (after the backend is chosen)
from matplotlib.figure import Figure  # noqa: E402

from repblend.store import write_bytes  # noqa: E402

STYLE = {
    "svg.hashsalt": "repblend", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 9.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10.0, "axes.grid": True,
    "grid.alpha": 0.25, "legend.frameon": False, "figure.dpi": 100.0, "savefig.dpi": 160.0,
    "figure.constrained_layout.use": True,
}
NO_DATES = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
"""File format -> metadata that would change from run to run, left out."""


@contextmanager
def canvas(rows: int, columns: int, width: float, height: float) -> Iterator[tuple[Figure, list]]:
    """Yield a figure of so many inches and its axes in reading order; it is closed afterwards.

    The style starts from matplotlib's own defaults, so a matplotlibrc of the machine changes nothing.
    """
    with pyplot.style.context(["default", STYLE]):
        figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), squeeze=False)
        try:
            yield figure, list(axes.flat)
        finally:
            pyplot.close(figure)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as SVG, PDF and PNG."""
    for kind, metadata in NO_DATES.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        write_bytes(folder / f"{name}.{kind}", buffer.getvalue())
