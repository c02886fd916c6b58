"""Links lead somewhere, and a document that a source or a document cites exists in this repository."""

import re
from pathlib import Path

from tests.docs.documents import ROOT, documents, sources, tracked

WRITTEN_ELSEWHERE = {"ATTRIBUTION.md", "image-layout.md"}
"""By users beside their images and by stages; by the Open Container Initiative."""
NOT_HERE = re.compile("PAPER" r"\.md|\bUFC\.md|\bDESIGN\b|\bHOUSE\b|STYLE\.md|parity/README\.md|\bissue \d+\b")
"""Texts that were never part of the repository."""


def texts() -> dict[str, str]:
    """Return the text of every document, source and test, by its path from the root."""
    return {str(path.relative_to(ROOT)): path.read_text("utf-8")
            for path in (*documents(), *sources(), *tracked("tests/*.py")) if path != Path(__file__)}


def test_every_cited_document_exists() -> None:
    missing = {name: found for name, text in texts().items() if (found := [
        cited for cited in re.findall(r"(?<![\w/.-])([\w./-]*\w\.md)\b", re.sub(r"https?://\S+", "", text))
        if Path(cited).name not in WRITTEN_ELSEWHERE and not _exists(ROOT / name, cited)])}
    assert missing == {}


def _exists(path: Path, cited: str) -> bool:
    return any((folder / cited).is_file() for folder in path.parents if folder.is_relative_to(ROOT))


def test_nothing_cites_a_text_that_is_not_here() -> None:
    assert {name: found for name, text in texts().items() if (found := sorted(set(NOT_HERE.findall(text))))} == {}


def test_cited_sections_of_the_method_exist() -> None:
    sections = set(re.findall(r"^## (\d+)\. ", (ROOT / "paper/METHOD.md").read_text("utf-8"), re.MULTILINE))
    assert len(sections) == 13
    cited = {(name, number) for name, text in texts().items() for numbers in re.findall(
        r"METHOD\.md,? \(?[Ss]ections? ((?:\d+(?:, | and | to )?)+)", " ".join(text.replace("#", " ").split()))
        for number in re.findall(r"\d+", numbers)}
    assert {(name, number) for name, number in cited if number not in sections} == set()


def test_every_relative_link_exists() -> None:
    broken = {}
    for path in tracked("*.md"):
        links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL))
        if found := [link for link in links if "://" not in link and not _leads_somewhere(path, link)]:
            broken[str(path.relative_to(ROOT))] = found
    assert broken == {}


def _leads_somewhere(path: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = path.parent / name if name else path
    if not anchor:
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
