"""Pulling: which outputs a group is, metrics from git, and what lies in the workspace and the cache already."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from repblend.params import read_yaml
from repro.artifacts import FOLDERS, IN_GIT, Artifacts, outputs
from tests.remotes import toy
from tests.remotes.conftest import ROOT, Published
from tests.remotes.test_faults import flip

METRICS = "metrics/toy-10.json"
SET = "sets/toy-10.bin"


def test_the_groups_are_those_of_the_pipeline() -> None:
    declared = {}
    for stage in read_yaml(ROOT / "dvc.yaml")["stages"].values():
        for output in [*stage.get("outs", []), *stage.get("metrics", [])]:
            path, cached = (output, True) if isinstance(output, str) else (next(iter(output)), False)
            declared[path] = cached
    assert {path for path, cached in declared.items() if not cached} == {
        path for path in declared if path.split("/")[0] == IN_GIT}
    assert {folder for folders in FOLDERS.values() for folder in folders} <= {path.split("/")[0] for path in declared}


def test_all_is_everything_that_the_lock_names(published: Published) -> None:
    named = {group: [output.path for output in outputs(published.project, group)] for group in Artifacts}
    assert named == {"metrics": [METRICS], "distilled": [SET], "trajectories": ["features"],
                     "all": ["features", METRICS, SET]}


@pytest.mark.parametrize(("group", "there"), [("distilled", {SET}), ("trajectories", {"features"})])
def test_a_group_comes_alone(newcomer: Path, group: str, there: set[str]) -> None:
    assert toy.pulled(newcomer, Artifacts(group)) == 0
    assert {name for name in (SET, "features") if (newcomer / name).exists()} == there


def test_pulling_and_what_it_starts_import_no_torch_and_leave_a_log(newcomer: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked/torch").mkdir(parents=True)
    (tmp_path / "blocked/torch/__init__.py").write_text("raise SystemExit('torch was imported')")
    path = os.pathsep.join([str(tmp_path / "blocked"), os.environ["PYTHONPATH"]])
    done = subprocess.run([sys.executable, "-m", "repro", "pull", "all"], cwd=newcomer, capture_output=True, text=True,
                          check=False, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert "repro pull all: 3 outputs are here, every file checked" in done.stdout
    assert "fetched features/below/large ü.bin" in (newcomer / "logs/pull.log").read_text("utf-8")


def test_metrics_that_are_missing_come_from_git_without_any_remote(published: Published, tmp_path: Path) -> None:
    folder = toy.clone(published.project, tmp_path / "clone")
    (folder / METRICS).unlink()
    (folder / "artifacts.sha256.json").unlink()
    assert toy.pulled(folder, Artifacts.METRICS) == 0
    assert (folder / METRICS).read_bytes() == (published.project / METRICS).read_bytes()


def test_metrics_that_were_changed_are_named_and_left_alone(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (newcomer / METRICS).write_text("mine")
    assert toy.pulled(newcomer, Artifacts.METRICS) == 1
    error = capsys.readouterr().err
    assert f"{METRICS}: expected MD5" in error and "git checkout HEAD" in error and "repro run distill" in error
    assert (newcomer / METRICS).read_text() == "mine"


def test_a_version_that_nobody_pushed_is_named(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (newcomer / "artifacts.sha256.json").write_text('{"outputs": {}}')
    assert toy.pulled(newcomer, Artifacts.DISTILLED) == 1
    error = capsys.readouterr().err
    assert f"{SET}:\n" in error and "nobody has pushed it" in error and "repro run distill" in error


def test_what_is_no_manifest_is_refused(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (newcomer / "artifacts.sha256.json").write_text('{"outputs": {"sets/toy-10.bin": {"md5": "0"}}}')
    assert toy.pulled(newcomer, Artifacts.DISTILLED) == 1
    assert "artifacts.sha256.json: expected 'outputs'" in capsys.readouterr().err


@pytest.mark.parametrize("remote", [None, "nowhere"])
def test_a_remote_that_is_not_configured_is_said(published: Published, tmp_path: Path, remote: str | None,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    folder = toy.clone(published.project, tmp_path / "clone")
    assert toy.pulled(folder, Artifacts.DISTILLED, remote) == 1
    error = capsys.readouterr().err
    assert error.startswith("repro pull: ") and (remote or "no remote specified") in error and "Traceback" not in error


def test_a_file_that_rotted_in_the_workspace_is_removed_and_comes_back(published: Published, newcomer: Path,
                                                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.pulled(newcomer) == 0
    file = newcomer / "features/7.bin"
    before = file.stat()
    flip(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # DVC sees nothing
    assert toy.pulled(newcomer) == 1
    assert "features/7.bin: in the workspace, expected 1007 bytes" in capsys.readouterr().err
    assert not file.exists()
    assert toy.pulled(newcomer) == 0
    assert toy.contents(newcomer) == toy.contents(published.project)


def test_an_object_that_rotted_in_the_cache_is_fetched_again(published: Published, newcomer: Path) -> None:
    assert toy.pulled(newcomer, Artifacts.DISTILLED) == 0
    cached = toy.object_of(newcomer / ".dvc/cache", newcomer / SET)
    flip(cached)
    cached.chmod(0o444)
    (newcomer / SET).unlink()
    assert toy.pulled(newcomer, Artifacts.DISTILLED) == 0
    assert (newcomer / SET).read_bytes() == (published.project / SET).read_bytes()


def test_what_a_user_changed_is_not_overwritten(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.pulled(newcomer, Artifacts.DISTILLED) == 0
    (newcomer / SET).unlink()
    (newcomer / SET).write_text("mine")
    assert toy.pulled(newcomer, Artifacts.DISTILLED) == 1
    assert "If you changed one" in capsys.readouterr().err
    assert (newcomer / SET).read_text() == "mine"
