"""`repro doctor`: each finding says what was found and how to mend it; the exit code says whether it is needed."""

import locale
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from repblend.runtime.provenance import commit_of, git
from repro import doctor
from repro.doctor import Finding, found_by

ROOT = Path(__file__).parents[2]


def workspace(tmp_path: Path, lock: str) -> Path:
    (tmp_path / "requirements").mkdir(parents=True)
    (tmp_path / ".dvc").mkdir()
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "requirements" / "lock.txt").write_text(lock)
    return tmp_path


def test_locked_packages_that_are_installed_are_fine(tmp_path: Path) -> None:
    root = workspace(tmp_path, f"numpy=={np.__version__} \\\n    --hash=sha256:00\n# a comment==1\n")
    assert doctor.check_packages(root) == Finding("packages", "ok", "all 1 are the locked ones")


def test_other_versions_and_missing_packages_are_named_with_the_remedy(tmp_path: Path) -> None:
    finding = doctor.check_packages(workspace(tmp_path, "numpy==0.1 \\\nno-such-package==2.0\n"))
    assert finding.status == "mend"
    assert finding.detail == (f"2 of 2 are not the locked ones: numpy 0.1 (found {np.__version__}), "
                              "no-such-package 2.0 (found none); run `make install`")


def test_another_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_python(tmp_path).status == "ok"
    for version, status in (((3, 13, 1), "note"), ((3, 14, 0), "mend"), ((3, 10, 2), "mend")):
        monkeypatch.setattr(sys, "version_info", version)
        found = doctor.check_python(tmp_path)
        assert found.status == status and found.detail.startswith(".".join(map(str, version)))


def test_packages_of_other_machines_are_not_asked_for(tmp_path: Path) -> None:
    lock = (f"numpy=={np.__version__} ; sys_platform == 'linux' or sys_platform == 'darwin' \\\n    --hash=sha256:00\n"
            "pywin32==312 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n")
    assert doctor.check_packages(workspace(tmp_path, lock)).detail == "all 1 are the locked ones"


def test_a_gpu_that_is_asked_for_and_not_there_is_said_without_torch(tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "GPU_DEVICES", (str(tmp_path / "nvidiactl"),))
    assert doctor.check_gpu("cpu").status == "ok" and doctor.check_gpu("cuda").status == "mend"
    (tmp_path / "nvidiactl").touch()
    assert doctor.check_gpu("cuda").status == "ok"


def test_a_run_begins_with_what_the_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(0, 0, doctor.GIB / 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(doctor, "NEEDED_MEMORY_GIB", 1e6)
    disk, memory = doctor.shortages(tmp_path)
    assert disk.startswith("disk: clone") and "0.5 GiB" in disk and memory.startswith("memory: ")


def test_wrong_parameters_are_shown(tmp_path: Path) -> None:
    root = workspace(tmp_path, "")
    assert found_by(doctor.check_parameters, root).status == "ok"
    (root / "params.yaml").write_text("seed: x\n")
    finding = found_by(doctor.check_parameters, root)
    assert finding.status == "mend" and "seed: Input should be a valid integer (found 'x')" in finding.detail


@pytest.mark.parametrize(("free_gib", "status"), [(0.5, "mend"), (100, "ok")])
def test_a_disk_without_room_has_to_be_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gib: float,
                                              status: str) -> None:
    usage = namedtuple("usage", "total used free")(0, 0, free_gib * doctor.GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    found = doctor.check_disk(tmp_path)
    assert found.status == status and "clone" in found.detail and "cache" in found.detail


def test_no_docker_engine_is_said_and_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
    finding = doctor.check_engine(tmp_path)
    assert (finding.name, finding.status) == ("engine", "note")
    assert f"no Docker engine answers at unix://{tmp_path}/absent.sock" in finding.detail


@pytest.mark.parametrize("answers", [0, 1])
def test_an_engine_that_hangs_is_said_in_time(answers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts, and at most says its version."""
    def serve() -> None:
        for number in range(answers + 1):
            connection = server.accept()[0]
            held.append(connection)
            if number < answers:
                body = b'{"ApiVersion": "1.41", "Version": "x"}'
                connection.recv(9999)
                head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
                connection.close()

    held: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path := Path(tempfile.mkdtemp()) / "engine.sock"))
        server.listen()
        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        monkeypatch.setattr("repro.engines.client.FIRST_ANSWER_S", 0.5)
        finding = found_by(doctor.check_engine, tmp_path)
    assert finding.status == "note" and "no Docker engine answers at unix://" in finding.detail
    assert "timed out" in finding.detail.lower(), finding


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A committed clone that DVC opens."""
    folder = workspace(tmp_path / "clone", "")
    for name in ("dvc.yaml", "dvc.lock", ".dvc/config"):
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "conf", folder / "conf")
    (folder / "src/repblend").mkdir(parents=True)
    (folder / "src/repblend/x.py").touch()
    for arguments in (["init", "-q"], ["add", "-A"],
                      ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


def told(root: Path, *names: str) -> dict[str, str]:
    """What some checks say that has to be mended."""
    found = [found_by(getattr(doctor, f"check_{name}"), root) for name in names]
    return {finding.name: finding.detail for finding in found if finding.status == "mend"}


def test_a_whole_clone_is_fine(clone: Path) -> None:
    assert told(clone, "dvc", "git", "pipeline", "folder", "encoding", "memory", "clock", "lock") == {}


def test_a_source_archive_is_no_clone(clone: Path) -> None:
    shutil.rmtree(clone / ".git")
    found = told(clone, "git", "dvc")
    assert "not a git repository" in found["git"] and "git init && git add --all && git commit" in found["git"]
    assert "is not a git repository). In a source archive, git init" in found["dvc"]
    assert commit_of(clone) == (None, None)


def test_without_git_nothing_is_said_of_changes(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit_of(clone)[1] is False
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "git: no such command. Install git" in told(clone, "git")["git"] and commit_of(clone) == (None, None)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_a_clone_of_another_user_is_told_with_both_remedies(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    subprocess.run(["chown", "-R", "4321:4322", clone], check=True)
    found = told(clone, "git", "folder")
    assert f"git config --global --add safe.directory {clone}" in found["git"] and commit_of(clone) == (None, None)
    assert "belongs to user 4321" in found["folder"] and "chown -R 0:0" in found["folder"]


@pytest.mark.parametrize(("name", "change", "words"), [
    ("dvc.lock", lambda text: f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n", "has conflict markers"),
    ("dvc.lock", lambda text: text[:1000], "is cut off"), ("dvc.lock", lambda text: "stages: 3\n", "DVC stopped"),
    (".dvc/config", lambda text: text[:25], "is cut off"),
    (".dvc/config", lambda text: "[core\n", "DVC cannot open"),
    (".dvc/config", lambda text: "[core]\n", "the default remote is None, expected one of the remotes"),
    ("dvc.yaml", lambda text: text[:500], "DVC stopped")])
def test_a_damaged_file_of_dvcs_is_named_with_the_remedy(name: str, change: Callable[[str], str], words: str,
                                                         clone: Path) -> None:
    (clone / name).write_text(change((clone / name).read_text()))
    found = told(clone, "dvc")["dvc"]
    assert words in found and name in found and "git checkout" in found


def test_outputs_that_are_links_are_found(clone: Path, tmp_path: Path) -> None:
    (clone / "features").symlink_to(tmp_path)
    assert "features: a link to" in told(clone, "folder")["folder"]


def test_what_a_check_did_not_expect_is_a_finding(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locale, "getpreferredencoding", lambda _: "ISO-8859-1")
    assert "files ISO-8859-1, expected UTF-8" in told(clone, "encoding")["encoding"]
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert "it says Thu Jan  1" in told(clone, "clock")["clock"]
    (clone / "requirements/lock.txt").unlink()
    assert "could not be found out (FileNotFoundError" in told(clone, "packages")["packages"]


def test_git_executes_nothing_that_a_repository_names(clone: Path, tmp_path: Path) -> None:
    touch = f"touch {tmp_path}/executed; cat"
    for setting in ("core.fsmonitor", "filter.a=b.clean", "filter.a=b.smudge", "filter.a=b.process", "core.sshCommand",
                    "core.editor", "diff.external", "core.pager"):
        subprocess.run(["git", "config", setting, touch], cwd=clone, check=True)
    subprocess.run(["git", "config", "filter.a=b.required", "true"], cwd=clone, check=True)
    (clone / ".gitattributes").write_text("* filter=a=b\n")
    hook = clone / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\n{touch}\n")
    hook.chmod(0o755)
    (clone / "params.yaml").touch()
    assert commit_of(clone)[1] is False
    git(clone, "clone", "--quiet", "--no-hardlinks", str(clone), str(tmp_path / "other"))
    assert git(clone, "show", "HEAD:./dvc.yaml") == (clone / "dvc.yaml").read_text().rstrip()
    assert not (tmp_path / "executed").exists() and (tmp_path / "other/params.yaml").exists()


@pytest.mark.parametrize(("statuses", "code", "words"), [
    (("ok", "note"), 0, "Ready: `repro run`"), (("ok", "mend", "mend"), 1, "To mend: check 1, check 2")])
def test_the_exit_code_is_one_only_if_something_must_be_mended(
        statuses: tuple[str, ...], code: int, words: str, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(doctor, "CHECKS", [lambda root, i=i, status=status: Finding(f"check {i}", status, "x")
                                           for i, status in enumerate(statuses)])
    assert doctor.main() == code
    assert words in capsys.readouterr().out
