"""`repro doctor`: each finding says what was found and how to mend it; the exit code says whether it is needed."""

import shutil
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from repro import doctor
from repro.doctor import Finding

ROOT = Path(__file__).parents[2]


def workspace(tmp_path: Path, lock: str) -> Path:
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "requirements").mkdir()
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
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    assert doctor.check_python(tmp_path).status == "mend" and "3.13.1" in doctor.check_python(tmp_path).detail


def test_wrong_parameters_are_shown(tmp_path: Path) -> None:
    root = workspace(tmp_path, "")
    assert doctor.check_parameters(root).status == "ok"
    (root / "params.yaml").write_text("seed: x\n")
    finding = doctor.check_parameters(root)
    assert finding.status == "mend" and "seed: Input should be a valid integer (found 'x')" in finding.detail


@pytest.mark.parametrize(("free_gib", "status"), [(0.5, "mend"), (100, "ok")])
def test_a_disk_without_room_has_to_be_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gib: float,
                                              status: str) -> None:
    usage = namedtuple("usage", "total used free")(0, 0, free_gib * doctor.GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert doctor.check_disk(tmp_path).status == status


def test_no_docker_engine_is_said_and_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
    finding = doctor.check_docker(tmp_path)
    assert (finding.name, finding.status) == ("docker", "note")
    assert f"no Docker engine answers at unix://{tmp_path}/absent.sock" in finding.detail


def test_a_folder_that_is_no_clone_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert doctor.check_git(tmp_path).status == "note"


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
