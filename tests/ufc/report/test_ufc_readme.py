"""The wing's README names the unimodal profiles that there are; its numbers are those of `tests/docs/numbers.py`."""

import re

from repro.profiles import names
from tests.stages.imports import ROOT

README = (ROOT / "src/repblend/ufc/README.md").read_text()


def test_the_profiles_that_are_named_are_those_there_are() -> None:
    assert {name for name in names(ROOT) if name.startswith("ufc-")} == set(
        re.findall(r"`(ufc-[a-z0-9-]+)`", README.split("```")[0]))
