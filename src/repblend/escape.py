"""One function per format that makes any text harmless in it: HTML, Markdown, LaTeX, CSV, terminals.

Names, captions, commands and the texts of records are other people's words. Whatever writes a page, a card or a table
passes them through here, and only here, before it adds markup of its own. Signs that would hide or turn the text around
(control characters, bidirectional marks) are shown as a replacement character everywhere.
"""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
                     "\ud800-\udfff]")
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~$]|(?<!\w)_|_(?!\w)|^[#=]|^[+-](?!\d)|(?<=^\d)[.)](?=\s|$)")
# An underscore inside of a word is text as it is; the last two begin headings and lists.
_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", "±": r"$\pm$",
    "×": r"$\times$", "[": "{[}", "]": "{]}", "*": "{*}"})  # behind a line break, a bracket or star is its argument
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a spreadsheet take a text for a formula, in either width."""
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def visible(words: str) -> str:
    """Return a text without signs that hide or turn around what stands beside them; line breaks and tabs stay."""
    return _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", words)


def one_line(words: str) -> str:
    """Return a text as one line for a terminal or a table, without signs that would move the cursor."""
    return " ".join(visible(words).split())


def latex(words: str) -> str:
    """Return a text for LaTeX, on one line: no command, no argument, no formula, no comment."""
    return one_line(words).translate(_LATEX)


def markdown(words: str) -> str:
    """Return a text for GitHub's Markdown, on one line, also in a table: no link, no HTML, no heading, no list."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(words).replace("&", "&amp;"))


def csv_cell(words: str) -> str:
    """Return a text for a cell of a CSV file: an apostrophe before what a spreadsheet would take for a formula; plain
    numbers as `-1.5` stay. Quotes and separators are the csv module's.
    """
    if words.lstrip(" ").startswith(FORMULA_STARTS) and not _PLAIN_NUMBER.fullmatch(words):
        words = f"'{words}"
    return visible(words)


def html_environment(**settings: Any) -> "jinja2.Environment":
    """Return a jinja2 environment that escapes every value of a template: only what a macro made is HTML already."""
    import jinja2  # slow to import, and `repro --help` needs none of it

    def shown(value: Any) -> Any:
        return visible(value) if type(value) is str else value

    return jinja2.Environment(autoescape=True, trim_blocks=True, finalize=shown, **settings)
