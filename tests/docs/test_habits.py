"""The table of habits of the released code in profiles/README.md has the values of the profiles."""

from typing import Any

import pytest

from repblend.params import Params
from repro.profiles import compose
from tests.docs.documents import ROOT

TITLE = "## Habits of the released code"


def rows() -> list[tuple[str, str, str]]:
    """Parameter, released value, embedded value."""
    section = (ROOT / "profiles/README.md").read_text("utf-8").partition(TITLE)[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "| `" in line]
    return [(row[1].strip("`"), row[2], row[3]) for row in cells]


def value(params: Params, key: str) -> str:
    """What a parameter is, as the table writes it; a method's is that of its cells."""
    parts = key.split(".")
    found: Any = params
    if parts[:2] == ["distill", "methods"]:
        found, parts = params.distill.settings(f"{parts[2]}-100"), parts[3:]
    for part in parts:
        found = getattr(found, part)
    return "null" if found is None else f"{found:g}" if isinstance(found, float) else str(found)


@pytest.fixture(scope="module")
def profiles() -> tuple[Params, Params]:
    """As in the paper, and as embedded."""
    return tuple(Params.model_validate(compose(ROOT, name)[1]) for name in ("flickr30k", "openmoji"))


@pytest.mark.parametrize(("key", "released", "embedded"), rows())
def test_the_table_says_what_both_profiles_have(key: str, released: str, embedded: str,
                                                profiles: tuple[Params, Params]) -> None:
    assert (value(profiles[0], key), value(profiles[1], key)) == (released, embedded)


def test_every_row_is_a_line_of_the_released_values() -> None:
    content = (ROOT / "conf/published/traps.yaml").read_text()
    for key, _, _ in rows():
        name = key.rpartition(".")[2]
        assert name in content or name in ("cached_views", "snapshots_every", "temperature", "logit_scale"), key
    assert len(rows()) == 16
