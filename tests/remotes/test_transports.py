"""Push and pull over every kind of remote, with real servers: what comes out is what was put in."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from repro.remote import Remote, dvc_repository
from repro.workspace import environment
from tests.remotes import toy
from tests.remotes.conftest import ROOT, Published
from tests.remotes.servers import WEBDAV, nginx, sshd

README = (ROOT / "README.md").read_text()


def nothing_is_to_be_done(folder: Path) -> bool:
    """Ask DVC itself, which hashes every file, whether a stage would have to run."""
    done = subprocess.run([sys.executable, "-m", "dvc", "repro", "--dry"], cwd=folder, capture_output=True, text=True,
                          check=True, env=environment())
    return "Data and pipelines are up to date." in done.stdout


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


def test_s3_is_understood_but_nothing_here_speaks_it(newcomer: Path) -> None:
    toy.add_remote(newcomer, "s3://bucket/repblend", endpointurl="http://127.0.0.1:1", access_key_id="a",
                   secret_access_key="b")
    with dvc_repository(newcomer) as repo:
        assert str(Remote(repo, None)) == "remote 'store' (s3://bucket/repblend/files/md5)"
