"""The page that says how the last run was isolated and what the last verification found."""

from html.parser import HTMLParser
from pathlib import Path

from repblend.store import write_json
from repro.run_page import CONTAINER, PAGE, VERIFICATION, write_run_page

RUN = {"engine": "20.10.24", "image": {"name": "repblend:0123", "id": "sha256:ab<c", "digests": []}, "commit": "f00",
       "containers": [{"command": "dvc repro", "exit_code": 0, "isolation": {
           "user": "1000:1000", "network": "none", "read_only": True, "capabilities_dropped": ["ALL"]}}]}


class Cells(HTMLParser):
    """Collects the text of a page, tables as name -> value."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.feed(page)
        self.text = " ".join(self.words)
        self.table = dict(zip(self.words, self.words[1:], strict=False))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())


def page_of(root: Path) -> Cells:
    write_run_page(root)
    return Cells((root / PAGE).read_text(encoding="utf-8"))


def test_a_workspace_without_records_says_how_to_make_them(tmp_path: Path) -> None:
    text = page_of(tmp_path).text
    assert "repro run --engine docker" in text and "repro verify" in text


def test_image_and_isolation_of_a_run_are_named(tmp_path: Path) -> None:
    write_json(tmp_path / CONTAINER, RUN)
    table = page_of(tmp_path).table
    assert (table["image: id"], table["image: digests"]) == ("sha256:ab<c", "none")
    assert (table["isolation: network"], table["isolation: read only"], table["isolation: capabilities dropped"]) == (
        "none", "yes", "ALL")


def test_the_verdict_names_what_differs_and_where_it_was_made(tmp_path: Path) -> None:
    record = {"commit": "f00", "outputs": 45, "stages": ["a", "b"], "container": RUN, "wall_seconds": 9.0,
              "different": {"sets/x": {"stage": "a", "expected": "1", "found": None}}}
    write_json(tmp_path / VERIFICATION, record)
    page = page_of(tmp_path)
    assert "45 outputs" in page.text and "1 not the same" in page.text
    assert page.table["sets/x"] == "stage a, expected 1, found None"
    assert (page.table["place"], page.table["stages"]) == ("in a container", "2")
    write_json(tmp_path / VERIFICATION, record | {"container": None, "different": {}})
    page = page_of(tmp_path)
    assert "0 not the same" in page.text and page.table["place"] == "on the machine itself"
