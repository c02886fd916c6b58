"""What a distilled set looks like: its pairs beside the real ones that they started from, and its soft similarity."""

import base64
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import imread

from repblend.report.canvas import QUIET, WIDTH, canvas, save, say_not_run
from repblend.report.metrics import Metrics
from repblend.report.titles import title
from repblend.store import JSON

BLOCKS_ACROSS = 2
BLOCK_HEIGHT = 1.5
PANELS = (1.0, 1.0, 2.1)
"""Widths of a block's parts: initial image, distilled image, captions."""
CHARACTERS = 36
"""Characters of a caption that fit on a line beside the images."""
LINES = 9
"""Lines of text that fit beside the images."""
IDENTITY = ("mtt-vl", "tesla-vl")
"""Methods that learn no similarity."""
PANEL, COLOUR_BAR, TITLE = 3.0, 0.8, 0.5
"""Inches that a similarity takes at most, and what stands beside and above it."""
TITLE_CHARACTERS = 18
"""Characters of a title that fit above a similarity."""


def specimens(metrics: Metrics, folder: Path) -> None:
    """What some pairs of the largest set of the first method started as and became, with the nearest captions."""
    found = [metrics.specimens(f"{method}-{max(metrics.grid.budgets)}") for method in metrics.grid.distilled[:1]]
    pairs = [pair for content in found if content for pair in content["pairs"]]
    rows = max(1, -(-len(pairs) // BLOCKS_ACROSS))
    with canvas(rows, 3 * BLOCKS_ACROSS, WIDTH, BLOCK_HEIGHT * rows,
                width_ratios=PANELS * BLOCKS_ACROSS) as (figure, axes):
        for panel in axes:
            panel.set_axis_off()
        for place, pair in enumerate(pairs):
            _draw_pair(axes[3 * place:3 * place + 3], pair)
        if not pairs:
            say_not_run(axes[2])
        save(figure, folder, "specimens")


def _draw_pair(panels: Sequence[Axes], pair: JSON) -> None:
    for panel, name in zip(panels[:2], ("initial", "distilled"), strict=True):
        if f"{name}_png" not in pair:  # an imported set does not say what it started from
            continue
        panel.imshow(imread(io.BytesIO(base64.b64decode(pair[f"{name}_png"])), format="png"))
        panel.set_title(name, fontsize=7.5, fontweight="normal", color=QUIET, pad=2)
    nearest = [f"{near['cosine']:.2f}  {near['caption']}" for near in pair["nearest_captions"]]
    _write(panels[2], 0, "initial caption", QUIET)
    for number, line in enumerate(_wrapped(pair.get("initial_caption", "not known: imported"), lines=2)):
        _write(panels[2], 1 + number, line)
    _write(panels[2], 4, "nearest captions (cosine)", QUIET)
    for number, line in enumerate(nearest):
        _write(panels[2], 5 + number, *_wrapped(line, lines=1))


def _write(panel: Axes, line: int, words: str, shade: str = "black") -> None:
    # Captions are other people's text: a dollar sign in one must not start a formula.
    panel.text(0, 1 - (line + 0.5) / LINES, words, transform=panel.transAxes, va="center", fontsize=7.5, color=shade,
               parse_math=False)


def _wrapped(words: str, lines: int) -> list[str]:
    return textwrap.wrap(words, CHARACTERS, max_lines=lines, placeholder=" …") or [""]


def similarity(metrics: Metrics, folder: Path) -> None:
    """The learned similarity of every distilled set, on one scale from 0 to 1 (the paper's Figure 2, right)."""
    budgets, methods = metrics.grid.budgets, _with_similarity(metrics)
    rows, columns = len(budgets), max(1, len(methods))
    width = min(PANEL * columns + COLOUR_BAR, WIDTH)
    with canvas(rows, columns, width, rows * ((width - COLOUR_BAR) / columns + TITLE)) as (figure, axes):
        drawn = [_draw_similarity(panel, metrics, method, budget)
                 for panel, (budget, method) in zip(axes, ((b, m) for b in budgets for m in methods), strict=False)]
        shown = next((image for image in drawn if image is not None), None)
        if shown is not None:
            figure.colorbar(shown, ax=axes, label="learned similarity (no unit)", extend="both", shrink=0.7, aspect=30)
        save(figure, folder, "similarity")


def _with_similarity(metrics: Metrics) -> tuple[str, ...]:
    """The methods whose similarity is drawn: those that match heads, and others where a file of specimens is there."""
    return tuple(method for method in metrics.learned if method in metrics.grid.distilled or (
        method not in IDENTITY and any(metrics.specimens(f"{method}-{budget}") for budget in metrics.grid.budgets)))


def _draw_similarity(panel: Axes, metrics: Metrics, method: str, budget: int) -> object | None:
    found = metrics.specimens(f"{method}-{budget}")
    panel.set_title("\n".join([*textwrap.wrap(title(method), TITLE_CHARACTERS), f"{budget} pairs"]))
    panel.grid(visible=False)
    if not found:
        panel.set_box_aspect(1)
        panel.set(xticks=[], yticks=[])
        say_not_run(panel)
        return None
    panel.set_xlabel("text of pair")
    panel.set_ylabel("image of pair")
    return panel.imshow(np.array(found["similarity"]), vmin=0, vmax=1, cmap="viridis")
