"""Pictures of sets: pairs beside the real ones that they started from, learned similarities (Figure 2, right), and
embeddings on the sphere (Figure 1).
"""

import io
import textwrap
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from repblend.methods import METHODS
from repblend.report.drawing import QUIET, WIDTH, canvas, save, say_not_run
from repblend.report.first import PAIR_WORDS, pictured
from repblend.report.grid_records import GridRecords
from repblend.report.screen import Picture
from repblend.titles import title

# Pairs before and after distillation.

BLOCKS_ACROSS = 2
BLOCK_HEIGHT = 1.5
PANELS = (1.0, 1.0, 1.0, 1.8)
"""Widths of a block's parts: real image, distilled image, difference, captions."""
CHARACTERS = 30
"""Characters of a caption that fit on a line beside the images."""
LINES = 9
"""Lines of text that fit beside the images."""


def specimens(records: GridRecords, folder: Path) -> None:
    """What some pairs of the largest set of the grid's first method started from and became, with nearest captions."""
    pairs = pictured(records)
    rows = max(1, -(-len(pairs) // BLOCKS_ACROSS))
    with canvas(rows, len(PANELS) * BLOCKS_ACROSS, WIDTH, BLOCK_HEIGHT * rows,
                width_ratios=PANELS * BLOCKS_ACROSS) as (figure, axes):
        for panel in axes:
            panel.set_axis_off()
        for place, pair in enumerate(pairs):
            _draw_pair(axes[len(PANELS) * place:len(PANELS) * (place + 1)], pair)
        if not pairs:
            say_not_run(axes[2])
        save(figure, folder, "specimens")


def _draw_pair(panels: Sequence[Axes], pair: Picture) -> None:
    for panel, word, png in zip(panels, PAIR_WORDS, pair.images, strict=False):
        if png is not None:  # an imported set does not say what it started from
            panel.imshow(imread(io.BytesIO(png)))
            panel.set_title(word, fontsize=7.5, fontweight="normal", color=QUIET, pad=2)
    line = 0
    for heading, captions in pair.captions:
        _write(panels[-1], line, heading, QUIET)
        for number, each in enumerate(captions):
            first = textwrap.wrap(each, CHARACTERS, max_lines=1, placeholder=" …")
            _write(panels[-1], line + 1 + number, *(first or [""]))
        line += len(captions) + 2


def _write(panel: Axes, line: int, words: str, shade: str = "black") -> None:
    # Captions are other people's text: a dollar sign in one must not start a formula.
    panel.text(0, 1 - (line + 0.5) / LINES, words, transform=panel.transAxes, va="center", fontsize=7.5, color=shade,
               parse_math=False)


# Learned similarity (Figure 2, right).

PANEL, COLOUR_BAR, TITLE = 3.0, 0.8, 0.5
"""Inches that a similarity takes at most, and what stands beside and above it."""
TITLE_CHARACTERS = 18
"""Characters of a title that fit above a similarity."""


def similarity(records: GridRecords, folder: Path) -> None:
    """The learned similarity of every distilled set, on one scale from 0 to 1."""
    budgets, methods = records.grid.budgets, methods_with_similarity(records)
    rows, columns = len(budgets), max(1, len(methods))
    width = min(PANEL * columns + COLOUR_BAR, WIDTH)
    with canvas(rows, columns, width, rows * ((width - COLOUR_BAR) / columns + TITLE)) as (figure, axes):
        drawn = []
        for panel, (budget, method) in zip(axes, product(budgets, methods), strict=False):
            matrix = records.similarity(f"{method}-{budget}")
            panel.set_title("\n".join([*textwrap.wrap(title(method), TITLE_CHARACTERS), f"{budget} pairs"]))
            panel.grid(visible=False)
            if matrix is None:
                panel.set_box_aspect(1)
                panel.set(xticks=[], yticks=[])
                say_not_run(panel)
                continue
            panel.set_xlabel("text of pair")
            panel.set_ylabel("image of pair")
            drawn.append(panel.imshow(matrix, vmin=0, vmax=1, cmap="viridis"))
        if drawn:
            figure.colorbar(drawn[0], ax=axes, label="learned similarity (no unit)", extend="both", shrink=0.7,
                            aspect=30)
        save(figure, folder, "similarity")


def methods_with_similarity(records: GridRecords) -> tuple[str, ...]:
    """Return the grid's methods that learn a similarity."""
    return tuple(method for method in records.learned if METHODS[method].similarity != "identity")


# Images and texts of three sets on the sphere (Figure 1).

SETS = ("random", "lors", "repblend")
BUDGET = 100
"""Pairs of the sets that are drawn, if sets of this budget are embedded; else the largest."""
MODALITY_MARKS = (("^", "#d62728", "image"), ("o", "#1f5fbf", "text"))
"""Marker, colour and word of each modality, as in the paper."""
BACK = 0.2
"""Opacity of points on the far side."""
SMALLEST = 1e-9
"""Length below which a direction is taken as none."""


def spheres(records: GridRecords, folder: Path) -> None:
    """A sphere per set, near points solid and far ones faint; a set without a record says 'not run'."""
    budgets = records.grid.compared_budgets or records.grid.budgets
    budget = BUDGET if BUDGET in budgets else max(budgets)
    with canvas(1, len(SETS), WIDTH, 3.5) as (figure, panels):
        for panel, method in zip(panels, SETS, strict=True):
            panel.set_title(f"{title(method)}, {budget} pairs")
            panel.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal")
            panel.set_axis_off()
            panel.add_patch(Circle((0, 0), 1, fill=False, edgecolor=QUIET, linewidth=0.8))
            found = records.embedding(f"{method}-{budget}")
            if found:
                _draw_points(panel, np.asarray(found.sphere.images), np.asarray(found.sphere.texts))
            else:
                say_not_run(panel)
        figure.legend(handles=[Line2D([], [], linestyle="", marker=shape, color=colour, label=word)
                               for shape, colour, word in MODALITY_MARKS], loc="outside lower center", ncols=2)
        save(figure, folder, "spheres")


def _draw_points(panel: Axes, images: np.ndarray, texts: np.ndarray) -> None:
    view = viewpoint(images, texts)
    for near in (False, True):  # far points first, so that near ones cover them
        for points, (shape, colour, _) in zip((images, texts), MODALITY_MARKS, strict=True):
            seen = points @ view.T
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
