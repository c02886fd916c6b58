"""Documented commands that take seconds and no network run in a fresh clone, in the order of a reader. `repro export`,
which makes features first in such a clone, is run in `tests/end_to_end`.
"""

import subprocess
from pathlib import Path

import pytest

from tests import forked
from tests.docs.documents import ROOT, commands

RUNNABLE = {
    "repro doctor": "ok    python",
    "repro plan": "data and features",
    "repro pull distilled": "",
    "dvc metrics show": "repblend-100",
    "dvc metrics diff": "",
    "dvc params diff": "",
    "dvc plots show": "index.html",
    "repro checkpoints list": "bert-base-uncased",
    "repro profile": "ufc-cifar100",
    "repro profile flickr30k data.folder=/data/f30k": "profiles/flickr30k",
    "repro plan --profile flickr30k": "GPU hours",
    "repro checkpoints --profile flickr30k": "nfnet_l0",
}
"""Command -> a part of what it prints."""
pytestmark = pytest.mark.runs
DOCUMENTS = ("README.md", "repro/README.md", "profiles/README.md")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader") / "repblend"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def printed(clone: Path) -> dict[str, str]:
    """What every command printed."""
    found = {}
    for command in RUNNABLE:
        program, *arguments = command.split()
        code, found[command] = (forked.repro if program == "repro" else forked.dvc)(clone, *arguments)
        assert code == 0 or command == "repro doctor", f"{command}\n{found[command]}"
    return found


def test_each_is_documented() -> None:
    documented = {" ".join(command.words) for name in DOCUMENTS for command in commands(ROOT / name)}
    assert RUNNABLE.keys() <= documented


def test_each_says_what_it_is_for(printed: dict[str, str]) -> None:
    assert {command: text for command, text in printed.items() if RUNNABLE[command] not in text} == {}


def test_the_profile_has_the_change_that_was_asked_for(clone: Path, printed: dict[str, str]) -> None:
    assert "folder: /data/f30k" in (clone / "profiles/flickr30k/params.yaml").read_text()
