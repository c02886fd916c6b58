"""Push and pull over every kind of remote, with real servers: what comes out is what was put in."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro.artifacts.remote import Remote, dvc_repository
from tests.remotes import toy
from tests.remotes.conftest import ROOT, Published
from tests.remotes.servers import WEBDAV, nginx, sshd
from tests.remotes.swift import Swift, swift
from tests.remotes.test_faults import flip

README = (ROOT / "repro/README.md").read_text()


def nothing_is_to_be_done(folder: Path) -> bool:
    """Ask DVC itself, which hashes every file, whether a stage would have to run."""
    with dvc_repository(folder) as repo, contextlib.chdir(folder):
        return repo.reproduce(dry=True) == []


def test_a_folder(published: Published, newcomer: Path) -> None:
    assert toy.pulled(newcomer) == 0
    assert toy.contents(newcomer) == toy.contents(published.project)
    assert nothing_is_to_be_done(newcomer)


def test_a_static_http_server(published: Published, newcomer: Path, store: Path, tmp_path: Path) -> None:
    with nginx(tmp_path / "nginx", store) as address:
        toy.add_remote(newcomer, f"http://{address}")
        assert toy.pulled(newcomer) == 0
    assert toy.contents(newcomer) == toy.contents(published.project)


def test_a_static_http_server_takes_nothing(published: Published, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    project = toy.colleague(published.project, tmp_path / "project")
    before = (project / "artifacts.sha256.json").read_bytes()
    (tmp_path / "empty").mkdir()
    with nginx(tmp_path / "nginx", tmp_path / "empty") as address:
        toy.add_remote(project, f"http://{address}")
        assert toy.pushed(project) == 1
    error = capsys.readouterr().err
    assert f"remote 'store' (http://{address}/files/md5) cannot be written: " in error and "Traceback" not in error
    assert (project / "artifacts.sha256.json").read_bytes() == before


def test_webdav(published: Published, newcomer: Path, tmp_path: Path) -> None:
    project = toy.colleague(published.project, tmp_path / "project")
    (tmp_path / "dav").mkdir()
    with nginx(tmp_path / "nginx", tmp_path / "dav", WEBDAV) as address:
        for folder in (project, newcomer):
            toy.add_remote(folder, f"webdav://{address}")
        assert (toy.pushed(project), toy.pulled(newcomer)) == (0, 0)
    assert toy.contents(newcomer) == toy.contents(published.project)
    assert toy.objects_in(tmp_path / "dav") == toy.objects_in(published.store)


def test_ssh(published: Published, newcomer: Path, tmp_path: Path) -> None:
    project = toy.colleague(published.project, tmp_path / "project")
    with sshd(tmp_path / "ssh") as settings:
        for folder in (project, newcomer):
            toy.add_remote(folder, f"ssh://127.0.0.1{tmp_path}/over ssh", **settings)
        assert (toy.pushed(project), toy.pulled(newcomer)) == (0, 0)
    assert toy.contents(newcomer) == toy.contents(published.project)
    assert toy.objects_in(tmp_path / "over ssh") == toy.objects_in(published.store)


@pytest.mark.parametrize("arguments", re.findall(r"^dvc (remote add .+)$", README, re.MULTILINE))
def test_the_readme_configures_remotes_that_dvc_understands(newcomer: Path, arguments: str) -> None:
    *command, url = arguments.split()
    toy.dvc(newcomer, *command, "--force", url)
    assert "dvc remote modify store verify true\n" in README
    toy.dvc(newcomer, "remote", "modify", "store", "verify", "true")
    (newcomer / ".dvc/config.local").unlink()  # of the fixture: it would win
    with dvc_repository(newcomer) as repo:
        host_and_path = url.split("@")[-1].removeprefix("https://").removeprefix("webdavs://")
        assert f"{host_and_path}/files/md5)" in str(Remote(repo, None))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    with swift(tmp_path_factory.mktemp("s3") / "swift") as server:
        yield server


def test_s3(published: Published, newcomer: Path, tmp_path: Path, s3: Swift,
            capsys: pytest.CaptureFixture[str]) -> None:
    project = toy.colleague(published.project, tmp_path / "project")
    original = published.project / "features/below/large ü.bin"
    for folder in (project, newcomer):
        toy.add_remote(folder, s3.url, **s3.settings)
    assert toy.pushed(project) == 0
    flip(s3.file_of(original.read_bytes()))  # a disk of the server goes bad
    capsys.readouterr()
    assert toy.pulled(newcomer) == 1
    error = capsys.readouterr().err
    assert f"features/below/{original.name}" in error and f"remote 'store' ({s3.url}" in error
    assert "Traceback" not in error and not (newcomer / "features").exists()
    assert (toy.pushed(project), toy.pulled(newcomer)) == (0, 0)  # Swift noticed as well, and forgot the object
    assert toy.contents(newcomer) == toy.contents(published.project)


@pytest.mark.parametrize(("url", "settings", "said"), [
    (None, {"secret_access_key": "wrong"}, "cannot be read"), ("s3://absent/repblend", {}, "does not have")])
def test_s3_with_a_wrong_key_or_bucket(newcomer: Path, s3: Swift, url: str | None, settings: dict[str, str], said: str,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    toy.add_remote(newcomer, url or s3.url, **s3.settings | settings)
    assert toy.pulled(newcomer) == 1
    error = capsys.readouterr().err
    assert f"remote 'store' ({url or s3.url}/files/md5) {said}" in error and "Traceback" not in error
