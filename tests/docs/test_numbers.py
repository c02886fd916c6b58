"""The numbers in the documents are those of the recorded files."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs import numbers
from tests.docs.documents import ROOT
from tests.docs.numbers import findings, glyphs, readme
from tests.docs.recorded import OPENMOJI, Bound, held_out


@pytest.mark.parametrize("of_document", [readme, findings, glyphs])
def test_the_numbers_are_those_of_the_recorded_files(of_document: Callable[[], Iterator[Bound]]) -> None:
    wrong = {}
    for bound in of_document():
        found = bound.find((ROOT / bound.document).read_text("utf-8")).groups()
        if found != bound.values:
            wrong[bound.text] = (found, bound.values)
    assert wrong == {}, "run `python -m tests.docs.numbers`"


def test_outdated_numbers_are_replaced_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "README.md").write_text("It takes 7 to\n8 min.\n| A | 1.0 ± 0.1 | 2.0 |\n")
    monkeypatch.setattr(numbers, "ROOT", tmp_path)
    monkeypatch.setattr(numbers, "readme", lambda: iter([Bound("README.md", "takes {} to {} min", ("7", "12")),
                                                         Bound("README.md", "| A | {} | {} |", ("1.5 ± 0.1", "2.5"))]))
    for name in ("findings", "glyphs"):
        monkeypatch.setattr(numbers, name, lambda: iter([]))
    numbers.bring_up_to_date()
    assert (tmp_path / "README.md").read_text() == "It takes 7 to\n12 min.\n| A | 1.5 ± 0.1 | 2.5 |\n"
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3 and told[0] == "README.md: 8 -> 12 in: takes 7 to 8 min"


def test_a_sentence_that_a_document_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"README.md: found 0 times, expected once: no such \{\} sentence"):
        Bound("README.md", "no such {} sentence", ("1",)).find("something else")


@pytest.mark.parametrize(("method", "other", "budgets"), [
    *(("repblend", other, (20, 50, 100, 200)) for other in ("lors", "random", "herding", "k-center", "forgetting")),
    ("lors", "tesla-vl", ()), ("repblend", "repblend-without-blending", ()),
    ("lors", "random+encoder-students", (20, 50)), ("lors", "herding+encoder-students", (20, 50)),
])
def test_a_method_leads_where_the_documents_say(method: str, other: str, budgets: tuple[int, ...]) -> None:
    """By one standard deviation at least, as paper/FINDINGS.md counts."""
    def lead(budget: int) -> float:
        (mean, deviation), (than, spread) = (map(float, held_out(OPENMOJI, f"{cell}-{budget}").split(" ± "))
                                             for cell in (method, other))
        return (mean - than) / math.hypot(deviation, spread)

    assert tuple(budget for budget in (20, 50, 100, 200) if lead(budget) >= 1) == budgets
