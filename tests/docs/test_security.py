"""The security page: every line is held by a test that exists, and nothing in it gets through."""

import re

from tests.docs.documents import ROOT

TEXT = (ROOT / "docs/SECURITY.md").read_text("utf-8")


def test_every_named_test_exists() -> None:
    named = set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", TEXT))
    assert len(named) > 30
    missing = [f"{file}::{name}" for file, name in sorted(named) if not (ROOT / file).is_file()
               or f"\ndef {name}(" not in (ROOT / file).read_text("utf-8")]
    assert missing == []


def test_every_attack_names_what_happens_and_its_test() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", TEXT.partition("## Attacks")[2], re.MULTILINE)[1:]
    assert len(rows) > 15 and all("tests/" in test for _, _, test in rows)
    assert not re.search("accepted|traceback", TEXT, re.IGNORECASE)
