"""Pulling: which outputs a group is, metrics from git, and what lies in the workspace and the cache already."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from repblend.params.reading import read_yaml
from repblend.runtime.locked import PLACES
from repro.artifacts.manifest import FOLDERS, IN_GIT, Artifacts, outputs
from repro.pipeline import yaml_text
from tests.remotes import toy
from tests.remotes.conftest import ROOT, Published
from tests.remotes.test_faults import flip

METRICS, RECORDS = "metrics/toy-10.json", "records/toy-10"
SET = "sets/toy-10.bin"


def test_the_groups_are_those_of_the_pipelines() -> None:
    declared = {}
    for template in ("conf/multimodal.dvc.yaml", "conf/ufc.dvc.yaml"):
        for stage in read_yaml(ROOT / template)["stages"].values():
            for output in [*stage.get("outs", []), *stage.get("metrics", [])]:
                path, cached = (output, True) if isinstance(output, str) else (next(iter(output)), False)
                declared[path] = cached
    assert {path for path, cached in declared.items() if not cached} == {
        path for path in declared if path.split("/")[0] == IN_GIT}
    groups = [folder for folders in FOLDERS.values() for folder in folders]
    assert {path.split("/")[0] for path in declared} == {
        *(group.split("/")[0] for group in groups), "settings", "data", "paper"}
    for group in groups:
        assert any(Path(path).is_relative_to(group) for path in declared), f"no stage writes below {group}"
    assert len(groups) == len(set(groups))
    for place in PLACES:
        assert any(Path(path).is_relative_to(place) for path in declared), f"no stage writes below {place}"
    assert all(any(Path(path).is_relative_to(place) for place in PLACES) for path in declared)


def test_all_is_everything_that_the_lock_names(published: Published) -> None:
    named = {group: [output.path for output in outputs(published.project, group)] for group in Artifacts}
    assert named == {"metrics": [METRICS, RECORDS], "distilled": [SET], "trajectories": ["features"],
                     "all": ["features", METRICS, RECORDS, SET]}


@pytest.mark.parametrize(("group", "there"), [("metrics", {RECORDS}), ("distilled", {SET}),
                                               ("trajectories", {"features"})])
def test_a_group_comes_alone(newcomer: Path, group: str, there: set[str]) -> None:
    assert toy.pulled(newcomer, Artifacts(group)) == 0
    assert {name for name in (SET, RECORDS, "features") if (newcomer / name).exists()} == there


def test_pulling_and_what_it_starts_import_no_torch_and_leave_a_log(newcomer: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked/torch").mkdir(parents=True)
    (tmp_path / "blocked/torch/__init__.py").write_text("raise SystemExit('torch was imported')")
    path = os.pathsep.join([str(tmp_path / "blocked"), os.environ["PYTHONPATH"]])
    done = subprocess.run([sys.executable, "-m", "repro", "pull", "all"], cwd=newcomer, capture_output=True, text=True,
                          check=False, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert "repro pull all: 4 outputs are here, every file checked" in done.stdout
    assert "fetched features/below/large ü.bin" in (newcomer / "logs/pull.log").read_text("utf-8")


def test_metrics_that_are_missing_come_from_git_without_any_remote(published: Published, tmp_path: Path) -> None:
    folder = toy.clone(published.project, tmp_path / "clone")
    (folder / METRICS).unlink()
    (folder / "artifacts.sha256.json").unlink()
    assert toy.pulled(folder, Artifacts.METRICS) == 1  # nobody has the records
    assert (folder / METRICS).read_bytes() == (published.project / METRICS).read_bytes()


def test_metrics_that_were_changed_are_named_and_left_alone(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (newcomer / METRICS).write_text("mine")
    assert toy.pulled(newcomer, Artifacts.METRICS) == 1
    error = capsys.readouterr().err
    assert f"{METRICS}: expected MD5" in error and "git checkout HEAD" in error and "repro run distill" in error
    assert (newcomer / METRICS).read_text() == "mine"


def test_a_version_that_nobody_pushed_is_named(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (newcomer / "artifacts.sha256.json").write_text("{}")
    assert toy.pulled(newcomer, Artifacts.DISTILLED) == 1
    error = capsys.readouterr().err
    assert f"{SET}:\n" in error and "nobody has pushed it" in error and "repro run distill" in error


@pytest.mark.parametrize("text", [
    '{"sets/toy-10.bin": "md5:0"}', '{"sets/toy-10.bin": {"md5": "0"}}', "[]", "3", "null",
    '{"../victim.txt": "md5:0"}', '{"sets/toy-10.bin": %s}' % ("[" * 500 + "]" * 500)])
def test_what_is_no_manifest_is_refused(newcomer: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (newcomer / "artifacts.sha256.json").write_text(text)
    assert toy.pulled(newcomer, Artifacts.DISTILLED) == 1
    assert "artifacts.sha256.json: expected 'md5:... sha256:...'" in capsys.readouterr().err


@pytest.mark.parametrize("path", [
    "../victim.txt", "/tmp/victim.txt", "sets/../../victim.txt", "sets//toy", "./sets/toy", "sets/a\nb", ".git/hooks/x",
    ".dvc/config.local", "repro/cli.py", "params.yaml", "data", "paper/report.ipynb", "set s\\x", "", 7, ["sets/x"]])
@pytest.mark.parametrize("command", [toy.pulled, toy.pushed])
def test_an_output_outside_of_its_places_is_refused_before_anything_is_fetched(
        newcomer: Path, path: object, command: Callable[[Path], int], capsys: pytest.CaptureFixture[str]) -> None:
    lock = read_yaml(newcomer / "dvc.lock")
    lock["stages"]["distill"]["outs"][-1]["path"] = path
    (newcomer / "dvc.lock").write_text(yaml_text(lock))
    assert command(newcomer) == 1
    error = capsys.readouterr().err
    assert f"{newcomer}/dvc.lock: 1 parameter(s) to mend\n  stages.distill.outs." in error and "Traceback" not in error
    assert not (newcomer / ".dvc/cache").exists() and not (newcomer / "features").exists()


@pytest.mark.parametrize("link", ["sets", "sets/toy-10.bin", "metrics"])
def test_nothing_is_written_through_a_link(newcomer: Path, tmp_path: Path, link: str,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "outside").mkdir()
    shutil.rmtree(newcomer / "metrics")
    (newcomer / link).parent.mkdir(exist_ok=True)
    (newcomer / link).symlink_to(tmp_path / "outside")
    assert toy.pulled(newcomer) == 1
    assert f"{newcomer / link}: is a link" in capsys.readouterr().err
    assert not (newcomer / ".dvc/cache").exists() and not any((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("listed", [
    '[{"md5": "%s", "relpath": "../../victim"}]', '[{"md5": "../../x", "relpath": "a"}]', '[["%s"]]', '{"md5": "%s"}',
    "7"])
def test_a_list_of_files_is_no_way_out_of_its_folder(newcomer: Path, store: Path, listed: str,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    content = listed.replace("%s", "0" * 32).encode()
    name = hashlib.md5(content).hexdigest() + ".dir"
    (store / "files/md5" / name[:2]).mkdir(exist_ok=True)
    (store / "files/md5" / name[:2] / name[2:]).write_bytes(content)
    before = read_yaml(newcomer / "dvc.lock")["stages"]["encode"]["outs"][0]["md5"]
    for file in (newcomer / "dvc.lock", newcomer / "artifacts.sha256.json"):
        file.write_text(file.read_text().replace(before, name))
    assert toy.pulled(newcomer, Artifacts.TRAJECTORIES) == 1
    error = capsys.readouterr().err
    assert "expected DVC's list of a folder's files" in error and "Traceback" not in error
    assert not (newcomer / "features").exists()


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
    assert re.search("features/7.bin: expected MD5 .*, found 1007 bytes .*, in the workspace", capsys.readouterr().err)
    assert not file.exists()
    assert toy.pulled(newcomer) == 0
    assert toy.contents(newcomer) == toy.contents(published.project)


def test_what_a_killed_dvc_left_half_written_is_removed(published: Published, newcomer: Path) -> None:
    assert toy.pulled(newcomer) == 0
    for output, placed in (("features", "features/7.bin"), ("sets", SET)):
        (newcomer / placed).unlink()
        (newcomer / output / ".AgPQkiZGT3IdYIBQ_uua9A.tmp").write_bytes(b"half")
        assert toy.pulled(newcomer) == 0
    assert toy.contents(newcomer) == toy.contents(published.project)
    assert [path for path in newcomer.rglob("*.tmp") if ".dvc" not in path.parts] == []


def flip_and_protect(path: Path) -> None:
    flip(path)
    path.chmod(0o444)


@pytest.mark.parametrize("damage", [flip_and_protect, toy.link_to_another])
def test_an_object_that_rotted_in_the_cache_is_fetched_again(published: Published, newcomer: Path,
                                                             damage: Callable[[Path], None]) -> None:
    assert toy.pulled(newcomer, Artifacts.DISTILLED) == 0
    damage(toy.object_of(newcomer / ".dvc/cache", newcomer / SET))
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
