"""The page in a real browser: at three widths, light and dark, and printed; what its script does; nothing is loaded."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import Browser, audit, browser

WIDTHS = (360, 800, 1200, 1400)
MOST_PAGES = 15


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def page(reported: Path) -> Path:
    return reported / "paper" / "report.html"


def texts(chromium: Browser, selector: str) -> list[str]:
    every = f"document.querySelectorAll({json.dumps(selector)})"
    found: list[str] = chromium.value(f"[...{every}].map((each) => each.innerText)")
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_is_legible_and_has_names_for_all_that_is_not_text(chromium: Browser, page: Path, width: int,
                                                                         scheme: str) -> None:
    found = audit(chromium, page, width, scheme)
    assert found["seen"] > 500 and len(found["images"]) > 24


def test_the_first_screen_answers_in_order(chromium: Browser, page: Path) -> None:
    chromium.open(page, 1400)
    headings = texts(chromium, "h2")
    assert headings[:5] == ["Does the paper's claim hold here?", "What distilling makes of a pair", "Recall by budget",
                            "Where it was computed, and how to check it", "Results"]
    assert texts(chromium, "nav a") == headings
    assert chromium.value("document.querySelectorAll('.pair img').length") == 3 * 8


def test_contents_are_open_beside_the_text_and_folded_above_it(chromium: Browser, page: Path) -> None:
    for width in WIDTHS:
        chromium.open(page, width)
        assert chromium.value("document.querySelector('nav details').open") == (width >= 1100)
        chromium.value("document.querySelector('nav details').open = true; scrollTo(0, 5000); null")
        chromium.value("new Promise(requestAnimationFrame)")
        assert chromium.value("document.querySelector('nav').getBoundingClientRect().top") == 0


def test_a_choice_of_protocol_is_one_everywhere(chromium: Browser, page: Path) -> None:
    chromium.open(page, 1400)
    shown = ("['held-out', 'faithful'].map((name) => "
             "document.getElementById(`table-results-${name}`).checkVisibility())")
    assert chromium.value(shown) == [True, False]
    chromium.value("document.querySelectorAll('.plot > label')[1].click()")
    assert chromium.value(shown) == [False, True]


def test_a_table_is_sorted_down_up_and_as_it_was(chromium: Browser, page: Path) -> None:
    chromium.open(page, 1400)
    rows = texts(chromium, "#table-results-held-out tbody tr")
    head = "document.querySelector('#table-results-held-out tr.columns th:last-child')"
    column = "#table-results-held-out tbody td:last-child"
    means = [float(words.split()[0]) for words in texts(chromium, column)]
    for direction, expected in (("descending", sorted(means, reverse=True)), ("ascending", sorted(means))):
        chromium.value(f"{head}.querySelector('button').click()")
        assert chromium.value(f"{head}.ariaSort") == direction
        assert [float(words.split()[0]) for words in texts(chromium, column)] == expected
        assert all(texts(chromium, "#table-results-held-out td.again"))  # its group is read in every row
    chromium.value(f"{head}.querySelector('button').click()")
    assert texts(chromium, "#table-results-held-out tbody tr") == rows and chromium.value(f"{head}.ariaSort") is None


def test_a_point_shows_its_value_and_leads_to_its_record(chromium: Browser, page: Path) -> None:
    chromium.open(page, 1400)
    point = "document.querySelector('.area .point[href=\"#records-evaluate-repblend-100\"]')"
    assert chromium.value(f"{point}.querySelector('.tip').checkVisibility()") is False
    chromium.value(f"{point}.focus()")
    assert chromium.value(f"{point}.querySelector('.tip').checkVisibility()") is True
    assert re.fullmatch(r"RepBlend 100 pairs: \d+\.\d ± \d+\.\d", chromium.value(f"{point}.innerText.trim()"))
    assert chromium.value("document.getElementById('records-evaluate-repblend-100').open") is False
    chromium.value(f"{point}.click()")
    chromium.value("new Promise(requestAnimationFrame)")
    assert chromium.value("document.getElementById('records-evaluate-repblend-100').open") is True


def test_it_prints_on_few_pages(chromium: Browser, page: Path) -> None:
    chromium.open(page, 1400, "dark")
    pages = len(re.findall(rb"/Type\s*/Page\b(?!s)", chromium.pdf()))
    assert 3 < pages <= MOST_PAGES
