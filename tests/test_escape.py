"""Escaping: one hostile text through every format, read back by a parser of the format."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from repblend.escape import csv_cell, html_environment, latex, markdown, one_line, visible

HOSTILE = ("=cmd|'/c x'!A1 <script>alert(1)</script> <img src=x onerror=y> \\input{/etc/passwd} \\write18{x} $x$ ^^5c "
           "](javascript:alert(1)) `c` \"quoted\" \u202egnp.exe \x1b[31m | a & b\nsecond line")


def test_html_has_no_element_or_attribute_of_a_text() -> None:
    page = html_environment().from_string('<p title="{{ text }}">{{ text }}</p>').render(text=HOSTILE)
    seen: list[tuple[str, list]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list) -> None:
            seen.append((tag, attrs))

    Reader().feed(page)
    assert [(tag, [name for name, _ in attrs]) for tag, attrs in seen] == [("p", ["title"])]
    assert seen[0][1][0][1] == visible(HOSTILE)


def test_latex_has_no_command_of_a_text() -> None:
    allowed = {"textbackslash", "textasciitilde", "textasciicircum"}
    assert set(re.findall(r"\\([A-Za-z]+)", latex(HOSTILE))) <= allowed
    assert "\n" not in latex(HOSTILE) and not re.search(r"(?<!\\)%|\^\^", latex(HOSTILE))


def test_markdown_has_no_link_html_or_cell_of_a_text() -> None:
    shown = markdown(HOSTILE)
    assert "\n" not in shown and not re.search(r"(?<!\\)[<>|`\]]", shown) and shown.startswith("\\=")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "\uff1d"])
def test_a_formula_becomes_a_text_in_csv(start: str) -> None:
    assert csv_cell(f"{start}cmd|x") == f"'{start}cmd|x"
    buffer = io.StringIO()
    csv.writer(buffer).writerow([csv_cell(HOSTILE), "b"])
    assert [len(row) for row in csv.reader(io.StringIO(buffer.getvalue(), newline=""))] == [2]


@pytest.mark.parametrize("number", ["-1.5", "+2", "-0.5e-3", "1,000", "random"])
def test_plain_numbers_and_words_stay_in_csv(number: str) -> None:
    assert csv_cell(number) == number


def test_terminals_get_no_control_sequence() -> None:
    assert one_line(HOSTILE).isprintable() and one_line("a\x1b[2J\nb") == "a\ufffd[2J b"
