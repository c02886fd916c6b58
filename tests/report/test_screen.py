"""What the first screen is made of, against definitions and by hand."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from repblend.report.claims import read_entries
from repblend.report.intervals import SetResult
from repblend.report.screen import (
    Level,
    Panel,
    Plot,
    Point,
    Series,
    difference_png,
    plot_html,
    tick_step,
    verdicts_html,
)
from repblend.report.table import Number
from repblend.report.verdicts import Claim, trial
from tests.report.synthetic import ROOT


def number(mean: float, std: float | None = 1.0) -> Number:
    return Number(mean, std, "key")


def claim(first: float, second: float | None) -> Claim:
    """A claim with one comparison of two methods that have two sets each, which differ by half a point."""
    sets = [{} if mean is None else {0: (SetResult(mean), "records/evaluate/a-50/record.json"),
                                     1: (SetResult(mean + 0.5 * place), "records/evaluate/b-50/record.json")}
            for place, mean in enumerate((first, second))]
    return Claim(ENTRY, (trial("50 pairs", "other", *sets),), ())


ENTRY = next(entry for entry in read_entries(ROOT) if entry.name == "blending-helps")


def test_the_sentence_counts_the_verdicts() -> None:
    said = re.search("<p class=\"answer\">(.*?)</p>", verdicts_html(
        [claim(9, 3), claim(3, 9), claim(3, 9), claim(3, 2), claim(3, None)], ""), re.DOTALL)
    assert said and " ".join(said[1].split()) == (
        "Of 5 claims of the paper, 1 holds, 2 do not hold, 1 is undecided here; 1 was not run.")
    alone = verdicts_html([claim(3, 2), claim(9, 3), claim(9, 2)], "")
    assert "2 hold, 1 is undecided here." in " ".join(alone.split())
    assert "nothing here says anything about the paper's claims" in verdicts_html([claim(3, None)], "")


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def test_a_difference_is_mid_grey_where_nothing_changed_and_doubled_elsewhere() -> None:
    draw = np.random.default_rng(0)
    before, after = (draw.integers(0, 256, (5, 4, 3), dtype=np.uint8) for _ in range(2))
    after[0] = before[0]
    shown = np.asarray(Image.open(io.BytesIO(difference_png(png(before), png(after)))))
    assert (shown[0] == 128).all()
    for place in np.ndindex(before.shape):
        expected = min(255.0, max(0.0, 127.5 + 2 * (float(after[place]) - float(before[place]))))
        assert abs(float(shown[place]) - expected) <= 0.5


@pytest.mark.parametrize(("width", "step"), [(40, 5), (39, 5), (41, 10), (8, 1), (0.7, 0.1), (100, 20), (161, 50)])
def test_ticks_are_round_and_at_most_eight_apart(width: float, step: float) -> None:
    assert tick_step(width) == pytest.approx(step)


def plot(*budgets: int, from_zero: bool = True) -> Plot:
    points = tuple(Point(budget, number(20 + place), "records/evaluate/x/record.json")
                   for place, budget in enumerate(budgets))
    panel = Panel("panel", (Series("low", "#000000", points[:1]), Series("high", "#ff0000", points)),
                  (Level("Chance", number(2, None), "records/evaluate/chance/record.json"),))
    return Plot("name", "Label (%)", "pairs", budgets, (panel,), from_zero)


def test_positions_are_those_of_the_values() -> None:
    shown = plot(50, 100, 200)
    assert shown.range() == (0, 25) and plot(50, from_zero=False).range() == (0, 25)
    assert [shown.across(budget) for budget in (50, 100, 200)] == pytest.approx([6, 50, 94])
    assert plot(50).across(50) == 50
    html = " ".join(plot_html(shown).split())
    assert re.findall(r'class="level" [^>]*style="bottom: ([\d.]+)%', html) == ["8.0"]
    assert re.findall(r"left: ([\d.]+)%; bottom: ([\d.]+)%", html) == [
        ("6.00", "80.0"), ("50.00", "84.0"), ("94.00", "88.0"), ("6.00", "80.0")]
    assert 'points="6.00,20.00 50.00,16.00 94.00,12.00"' in html
    assert 'points="6.00,24.00 50.00,20.00 94.00,16.00 94.00,8.00 50.00,12.00 6.00,16.00"' in html  # one deviation
    assert html.index(">high <b>") < html.index(">low <b>")  # the key goes by the largest budget, then by the value
