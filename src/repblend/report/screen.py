"""The first screen of a report, whatever it is about: which claims hold, pictures, a plot, where it was computed.

Here is what its parts are made of; their HTML is in `template/screen.html.j2`. The plot is HTML that a browser lays out
at any width; `drawing.plot` draws the same `Plot` for files.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from repblend.records.base import Traced
from repblend.report.markup import anchor, part
from repblend.report.table import NOT_RUN, Number
from repblend.report.verdicts import FAILS, HOLDS, RULE, UNDECIDED, Claim
from repblend.runtime.provenance import read_runs

TEMPLATE = "screen.html.j2"

# Claims.

MARKS = {HOLDS: "holds", FAILS: "fails", UNDECIDED: "undecided", NOT_RUN: "absent"}
"""Verdict -> class in the style sheet."""


def verdicts_html(claims: Sequence[Claim], beside: Markup) -> Markup:
    """Every claim that was tried here: published effect, ours with its interval, verdict, files; then those that were
    not, by name.

    Args:
        beside: what stands below the table: every number behind it.
    """
    counts = {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in MARKS}
    return part("verdicts", TEMPLATE, claims=[claim for claim in claims if claim.run], counts=counts, num=len(claims),
                absent=[claim for claim in claims if not claim.run], marks=MARKS, rule=RULE, anchor=anchor,
                beside=beside)


# Pictures before and after.

GAIN = 2.0
"""How many times a difference is enlarged around mid-grey."""


@dataclass(frozen=True)
class Picture:
    """An image before and after, and what is to be read beside it."""

    before: bytes | None
    """PNG; None where it is not known."""
    after: bytes
    name: str
    """Of what it shows, for readers who do not see it."""
    captions: Sequence[tuple[str, Sequence[str]]] = ()
    """Heading and lines of what is written beside it."""

    @property
    def images(self) -> tuple[bytes | None, ...]:
        """Before, after, and the difference, as PNG."""
        return self.before, self.after, difference_png(self.before, self.after) if self.before else None


def difference_png(before: bytes, after: bytes) -> bytes:
    """Return as PNG what a second image changes in the first: mid-grey is no change, `GAIN` times enlarged, clipped."""
    first, second = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float64) for png in (before, after))
    change = np.clip(127.5 + GAIN * (second - first), 0, 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(change).save(buffer, "png")
    return buffer.getvalue()


def pictures_html(pictures: Sequence[Picture], words: Sequence[str], name: str) -> Markup:
    """Pictures beside what they started from and the difference.

    Args:
        words: what the image before, the one after and the difference are called.
        name: of the figure whose files hold the same.
    """
    shown = [(picture, [png and base64.b64encode(png).decode("ascii") for png in picture.images])
             for picture in pictures]
    return part("pictures", TEMPLATE, pictures=shown, words=words, name=name, gain=f"{GAIN:g}")


# A plot of what sets reach by budget.


@dataclass(frozen=True)
class Point:
    """What a set of a budget reaches."""

    budget: int
    number: Number
    file: str


@dataclass(frozen=True)
class Series:
    """A line of the plot."""

    title: str
    colour: str
    points: tuple[Point, ...]
    dashed: bool = False
    """Whether its students are of another kind than most."""


@dataclass(frozen=True)
class Level:
    """A horizontal line: a bound."""

    title: str
    number: Number
    file: str
    dotted: bool = False


@dataclass(frozen=True)
class Panel:
    """Everything that was measured in one way."""

    title: str
    series: tuple[Series, ...]
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class Plot:
    """What sets reach by budget, in panels of which a page shows one at a time."""

    name: str
    """Of the figure."""
    label: str
    """What is measured, with its unit."""
    unit: str
    """What a budget counts."""
    budgets: tuple[int, ...]
    panels: tuple[Panel, ...]
    from_zero: bool = True

    def range(self) -> tuple[float, float]:
        """Return the lowest and the highest value of the axis, both at a tick."""
        shown = [each for panel in self.panels for each in (
            *(point.number for line in panel.series for point in line.points),
            *(level.number for level in panel.levels))]
        edges = [each.mean + sign * (each.std or 0) for each in shown for sign in (-1, 1)] or [0.0, 100.0]
        step = tick_step(max(edges) - (0 if self.from_zero else min(edges)))
        low = 0.0 if self.from_zero else math.floor(min(edges) / step) * step
        return low, max(math.ceil(max(edges) / step) * step, low + step)

    def across(self, budget: int) -> float:
        """Return where a budget stands, in percent of the width, by its logarithm."""
        first, last = math.log(min(self.budgets)), math.log(max(self.budgets))
        return 50.0 if first == last else 6 + 88 * (math.log(budget) - first) / (last - first)


def tick_step(width: float) -> float:
    """Return the distance of ticks, 1, 2 or 5 times a power of ten, that gives at most eight of them."""
    power = 10.0 ** math.floor(math.log10(max(width, 1e-9) / 8))
    return next(step * power for step in (1, 2, 5, 10) if step * power * 8 >= width)


def plot_html(plot: Plot) -> Markup:
    """The plot with the value of every point, and a key that is sorted by what is reached at the largest budget."""
    low, high = plot.range()
    step = tick_step(high - low)
    ticks = [round(low + step * number, 9) for number in range(round((high - low) / step) + 1)]

    def up(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    def corners(line: Series, sign: int) -> list[str]:
        """Where the line goes, or, one deviation below or above it, an edge of its band."""
        return [f"{plot.across(each.budget):.2f},{100 - up(each.number.mean + sign * (each.number.std or 0)):.2f}"
                for each in line.points]

    panels = [{"title": panel.title, "levels": panel.levels, "lines": [
        {"line": line, "course": " ".join(corners(line, 0)), "last": line.points[-1],
         "band": " ".join([*corners(line, -1), *reversed(corners(line, 1))])}
        for line in sorted(panel.series, key=lambda line: (-line.points[-1].budget, -line.points[-1].number.mean))]}
        for panel in plot.panels]
    return part("plot", TEMPLATE, plot=plot, panels=panels, ticks=ticks, up=up, anchor=anchor)


# Where it was computed, and how to check it.


def origin_html(root: Path, sources: Mapping[str, Traced], profile: str | None) -> Markup:
    """What computed the records, and the command that computes them again.

    The page does not name a commit, nor what a verification found: a verification compares this page's own bytes, and
    the commit that keeps them comes after them. Both are in `run.html` beside it.

    Args:
        root: of the workspace, whose `runs.jsonl` names the processors.
        sources: its records by their paths.
        profile: its name; None for the default one.
    """
    made = [record.provenance for record in sources.values()]
    stages = {each.stage if each.cell is None else f"{each.stage}@{each.cell}" for each in made}
    machines = sorted({run.computed_on for run in read_runs(root / "runs.jsonl") if run.stage in stages})
    libraries = sorted({f"{name} {version}" for each in made for name, version in each.libraries.items()})
    locked = sorted({each.requirements_sha256 for each in made if each.requirements_sha256})
    return part("origin", TEMPLATE, machines=machines, devices=sorted({each.device for each in made}), num=len(made),
                libraries=libraries, locked=locked, profile=profile)
