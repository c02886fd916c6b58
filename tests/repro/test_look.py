"""What DVC would believe without a look: files with their old times, and objects of the cache with others' names."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from repro.artifacts.look import NOTES, Hashes, make_dvc_look
from repro.workspace import environment
from tests.remotes import toy

SET, METRIC = "sets/toy-10.bin", "metrics/toy-10.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make(tmp_path_factory.mktemp("made") / "project")


def run_again(project: Path) -> None:
    with mock.patch.dict(os.environ, environment()):
        toy.dvc(project, "repro", "--quiet")


def swap(path: Path) -> None:
    """Change a file's content, and put its times back, so that DVC sees nothing."""
    before, content = path.stat(), path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("file", [SET, METRIC, "features/7.bin"])
def test_a_file_that_was_changed_behind_dvcs_back_is_named_and_made_again(made: Path, file: str) -> None:
    right = toy.contents(made)
    assert make_dvc_look(made) == []
    swap(made / file)
    (told,) = make_dvc_look(made)
    assert told.startswith(f"{file}: ")
    run_again(made)
    assert make_dvc_look(made) == [] and toy.contents(made) == right


@pytest.mark.parametrize("damage", [toy.link_to_another, swap])
def test_a_cache_object_that_holds_something_else_is_not_placed(made: Path, damage: Callable[[Path], None]) -> None:
    right = toy.contents(made)
    damage(toy.object_of(made / ".dvc/cache", made / SET))
    (made / SET).unlink()
    assert make_dvc_look(made) == []  # nothing is wrong in the workspace yet
    run_again(made)
    assert toy.contents(made) == right


def test_a_wrong_set_that_dvc_has_placed_is_named(made: Path) -> None:
    right = toy.contents(made)
    toy.link_to_another(toy.object_of(made / ".dvc/cache", made / SET))
    (made / SET).unlink()
    run_again(made)
    assert (made / SET).read_bytes() != right[SET]
    (told,) = make_dvc_look(made)
    assert told.startswith(f"{SET}: expected MD5")
    run_again(made)
    assert make_dvc_look(made) == [] and toy.contents(made) == right


def test_hashes_are_remembered_until_anything_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("a")
    first = Hashes(tmp_path)
    found = first(tmp_path / "file")
    first.write()
    assert Hashes(tmp_path)._before == {}  # it changed a moment ago
    monkeypatch.setattr("repro.artifacts.look.SETTLED_NS", 0)
    first(tmp_path / "file")
    first.write()
    monkeypatch.setattr("repro.artifacts.look.md5", lambda path: pytest.fail("hashed again"))
    assert Hashes(tmp_path)(tmp_path / "file") == found
    monkeypatch.undo()
    swap(tmp_path / "file")
    assert Hashes(tmp_path)(tmp_path / "file") != found
    (tmp_path / "file").rename(tmp_path / "another")
    Hashes(tmp_path).write()
    assert json.loads((tmp_path / NOTES).read_text()) == {}, "a file that is gone is forgotten"
    (tmp_path / "another").rename(tmp_path / "file")
    for damaged in ("", "[]", "3", '{"x": 3}', "[" * 100_000):
        (tmp_path / NOTES).write_text(damaged)
        assert Hashes(tmp_path)(tmp_path / "file") != found
