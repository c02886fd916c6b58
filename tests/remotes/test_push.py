"""Pushing: the manifest against the files themselves, and what must not be published."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from repro.artifacts.manifest import Artifacts
from tests.remotes import toy
from tests.remotes.conftest import ROOT, Published
from tests.remotes.test_faults import flip, truncate

MANIFEST = "artifacts.sha256.json"


@pytest.fixture
def project(published: Published, store: Path, tmp_path: Path) -> Path:
    """A project with a cache of its own, to be damaged, whose remote is `store`."""
    folder = toy.clone(published.project, tmp_path / "project")
    shutil.copytree(published.project / ".dvc/cache", folder / ".dvc/cache")
    toy.add_remote(folder, str(store))
    return folder


def test_the_manifest_has_a_row_for_every_cached_output(published: Published) -> None:
    manifest = json.loads((published.project / MANIFEST).read_text())
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in toy.contents(published.project).items()}

    def whole(folder: str) -> str:
        files = {name.removeprefix(f"{folder}/"): found for name, found in hashes.items() if name.startswith(folder)}
        return hashlib.sha256(json.dumps(dict(sorted(files.items()))).encode()).hexdigest()

    expected = {"features": whole("features"), "records/toy-10": whole("records/toy-10"),
                "sets/toy-10.bin": hashes["sets/toy-10.bin"]}
    lock = (published.project / "dvc.lock").read_text()
    found = {name: re.fullmatch(r"md5:(\S+) sha256:(\S+)", row).groups() for name, row in manifest.items()}
    assert {name: sha256 for name, (_, sha256) in found.items()} == expected
    assert all(f"md5: {md5}\n" in lock for md5, _ in found.values())


def test_pushing_again_changes_no_byte(project: Path, store: Path) -> None:
    before = (project / MANIFEST).read_bytes(), {path: path.stat().st_ino for path in store.rglob("*")}
    assert toy.pushed(project) == 0
    assert before == ((project / MANIFEST).read_bytes(), {path: path.stat().st_ino for path in store.rglob("*")})


def test_what_an_interrupted_push_left_is_sent_again(published: Published, project: Path, store: Path) -> None:
    truncate(toy.object_of(store, published.project / "features/below/large ü.bin"))
    assert toy.pushed(project) == 0
    assert toy.objects_in(store) == toy.objects_in(published.store)


@pytest.mark.parametrize("damage", [flip, toy.link_to_another])
def test_a_damaged_cache_is_not_published_though_it_was_whole_before(
        published: Published, project: Path, store: Path, damage: Callable[[Path], None],
        capsys: pytest.CaptureFixture[str]) -> None:
    damage(toy.object_of(project / ".dvc/cache", published.project / "sets/toy-10.bin"))
    before = toy.objects_in(store)
    assert toy.pushed(project) == 1
    assert "sets/toy-10.bin: expected" in (error := capsys.readouterr().err) and "in DVC's cache" in error
    assert toy.objects_in(store) == before


def test_a_damaged_cache_is_not_published(published: Published, project: Path, store: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(store)
    (project / MANIFEST).unlink()
    flip(toy.object_of(project / ".dvc/cache", published.project / "features/5.bin"))
    assert toy.pushed(project) == 1
    error = capsys.readouterr().err
    assert "features/5.bin: expected MD5" in error and "repro run encode" in error
    assert list(json.loads((project / MANIFEST).read_text())) == ["records/toy-10", "sets/toy-10.bin"]
    assert len(toy.objects_in(store)) == 4  # two files, their list, and the set


def test_a_group_is_pushed_alone_and_the_rows_of_the_others_stay(published: Published, project: Path, store: Path
                                                                 ) -> None:
    shutil.rmtree(store)
    before = (project / MANIFEST).read_bytes()
    assert toy.pushed(project, Artifacts.METRICS) == 0
    assert (project / MANIFEST).read_bytes() == before
    assert len(toy.objects_in(store)) == 3
    (project / MANIFEST).unlink()
    assert toy.pushed(project, Artifacts.DISTILLED) == 0
    assert list(json.loads((project / MANIFEST).read_text())) == ["sets/toy-10.bin"]


def test_the_folder_of_the_clone_is_written_only_if_it_is_named(project: Path, capsys: pytest.CaptureFixture[str]
                                                                ) -> None:
    shutil.copyfile(ROOT / ".dvc/config", project / ".dvc/config")  # as every clone has it
    (project / ".dvc/config.local").unlink()
    assert toy.pushed(project) == 1
    error = capsys.readouterr().err
    assert f"remote 'shipped' ({project}/artifacts/files/md5) is the folder of the clone" in error
    assert "repro push --remote NAME" in error and "--remote shipped" in error
    assert not (project / "artifacts").exists()
    assert toy.pushed(project, Artifacts.METRICS, "shipped") == 0
    shutil.rmtree(project / ".dvc/cache")
    assert toy.pulled(project, Artifacts.METRICS) == 0 and (project / "records/toy-10/record.json").is_file()


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
