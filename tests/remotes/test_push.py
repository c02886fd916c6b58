"""Pushing: the manifest against the files themselves, and what must not be published."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from tests.remotes import toy
from tests.remotes.conftest import Published
from tests.remotes.test_faults import flip, truncate

MANIFEST = "artifacts.sha256.json"


@pytest.fixture
def project(published: Published, store: Path, tmp_path: Path) -> Path:
    """A project with a cache of its own, to be damaged, whose remote is `store`."""
    folder = toy.clone(published.project, tmp_path / "project")
    shutil.copytree(published.project / ".dvc/cache", folder / ".dvc/cache")
    toy.add_remote(folder, str(store))
    return folder


def test_the_manifest_says_what_every_cached_file_is(published: Published) -> None:
    manifest = json.loads((published.project / MANIFEST).read_text())
    found = {file: (content["bytes"], content["sha256"]) for entry in manifest["outputs"].values()
             for file, content in entry["files"].items()}
    files = {name: content for name, content in toy.contents(published.project).items() if "metrics/" not in name}
    assert found == {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()}
    lock = (published.project / "dvc.lock").read_text()
    assert all(f"md5: {entry['md5']}\n" in lock for entry in manifest["outputs"].values())


def test_pushing_again_changes_no_byte(project: Path, store: Path) -> None:
    before = (project / MANIFEST).read_bytes(), {path: path.stat().st_ino for path in store.rglob("*")}
    assert toy.pushed(project) == 0
    assert before == ((project / MANIFEST).read_bytes(), {path: path.stat().st_ino for path in store.rglob("*")})


def test_what_an_interrupted_push_left_is_sent_again(published: Published, project: Path, store: Path) -> None:
    truncate(toy.object_of(store, published.project / "features/below/large ü.bin"))
    assert toy.pushed(project) == 0
    assert toy.objects_in(store) == toy.objects_in(published.store)


def test_a_damaged_cache_is_not_published(published: Published, project: Path, store: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(store)
    (project / MANIFEST).unlink()
    flip(toy.object_of(project / ".dvc/cache", published.project / "features/5.bin"))
    assert toy.pushed(project) == 1
    error = capsys.readouterr().err
    assert "features/5.bin: expected MD5" in error and "repro run encode" in error
    assert list(json.loads((project / MANIFEST).read_text())["outputs"]) == ["sets/toy-10.bin"]
    assert len(toy.objects_in(store)) == 1


def test_outputs_that_are_not_here_but_were_pushed_before_stay_in_the_manifest(project: Path) -> None:
    before = (project / MANIFEST).read_bytes()
    shutil.rmtree(project / ".dvc/cache/files")
    assert toy.pushed(project) == 0
    assert (project / MANIFEST).read_bytes() == before


def test_outputs_that_nobody_has_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(project / ".dvc/cache/files")
    (project / MANIFEST).unlink()
    assert toy.pushed(project) == 1
    error = capsys.readouterr().err
    assert "features:\n" in error and "not in DVC's cache" in error and "repro run distill" in error


def test_a_remote_that_cannot_be_written_is_said(project: Path, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    toy.add_remote(project, str(tmp_path / "file"))
    assert toy.pushed(project) == 1
    error = capsys.readouterr().err
    assert error.startswith("repro push: remote 'store'") and "Traceback" not in error
