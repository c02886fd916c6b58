"""DVC's list of readers and writers after a kill: what is left of a container or half-written goes, the rest stays."""

import json
from pathlib import Path

import pytest

from repro.dvc_locks import forget_killed


def entry(command: str) -> str:
    return json.dumps({"write": {"/workspace/a": {"pid": 7, "cmd": command}}, "read": {}})


@pytest.mark.parametrize(("text", "stays"), [
    (entry("/workspace/repro/guarded_dvc.py repro a"), False), (entry("/usr/bin/dvc repro a"), True),
    (entry("/home/me/clone/repro/guarded_dvc.py repro a"), True), ('{"write": {"/work', False), ("", False),
    ("{}", True)])
def test_only_what_cannot_be_of_a_running_dvc_goes(text: str, stays: bool, tmp_path: Path) -> None:
    path = tmp_path / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    forget_killed(tmp_path)
    assert path.exists() == stays
    assert not stays or path.read_text() == text


def test_no_list_is_fine(tmp_path: Path) -> None:
    forget_killed(tmp_path)
    assert list(tmp_path.iterdir()) == []
