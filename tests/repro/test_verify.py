"""Verdicts of `repro verify`: same, different, missing, unknown; and when it refuses."""

import shutil
import subprocess
from pathlib import Path

import pytest

from repblend.runtime.locked import Output
from repro import verify
from repro.compare import Verdict, verdicts_of
from repro.engines.base import Engine, Request

ROOT = Path(__file__).parents[2]
def outputs(*rows: tuple[str, str, int]) -> dict[str, Output]:
    """Outputs by path: of stage, path and a number that stands for the MD5."""
    return {path: Output(stage=stage, path=path, md5=f"{number:032}") for stage, path, number in rows}


def test_every_output_of_the_stages_run_gets_its_verdict() -> None:
    expected = outputs(("a", "sets/same", 1), ("a", "sets/other", 2), ("a", "sets/gone", 3), ("b", "sets/not-run", 4))
    found = outputs(("a", "sets/same", 1), ("a", "sets/other", 9), ("a", "sets/new", 5), ("b", "sets/not-run", 4))
    verdicts = verdicts_of(expected, found, {"a"})
    assert [str(verdict).split()[0] for verdict in verdicts] == ["MISSING", "UNKNOWN", "DIFFERS", "same"]
    assert [verdict.same for verdict in verdicts] == [False, False, False, True]


def test_a_difference_names_stage_and_both_hashes() -> None:
    assert str(Verdict("encode", "features", "12", "34")) == (
        "DIFFERS  features (stage encode: expected 12, found 34)")


def test_nothing_outside_of_a_checkout_is_removed_through_a_link(tmp_path: Path) -> None:
    outside, workspace = tmp_path / "outside", tmp_path / "workspace"
    for folder in (outside, workspace / "metrics"):
        folder.mkdir(parents=True)
        (folder / "a.json").touch()
    (workspace / "records").symlink_to(outside)
    verify._remove_outputs(workspace, ["records/a.json", "records"])
    assert (outside / "a.json").exists() and not (workspace / "metrics").exists()


@pytest.mark.parametrize(("verdicts", "code"), [
    ([Verdict("a", "x", "1", "1")], 0), ([Verdict("a", "x", "1", "1"), Verdict("a", "y", "1", "2")], 1), ([], 1)])
def test_the_exit_code_is_zero_only_if_all_that_was_made_is_the_same(verdicts: list[Verdict], code: int) -> None:
    assert verify._tell(verdicts) == code


def test_a_folder_without_history_cannot_be_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert verify.main([], "openmoji") == 1
    assert "Verification needs a git clone with at least one commit" in capsys.readouterr().err


def test_a_profile_that_is_not_committed_is_refused_before_anything_is_fetched(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "src/repblend").mkdir(parents=True)
    (tmp_path / "src/repblend/__init__.py").touch()
    shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for arguments in (["init", "-q"], ["add", "-A"],
                      ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verify, "fetch_missing", lambda profile: pytest.fail("nothing is to be fetched"))
    assert verify.main([], "flickr30k", Request(Engine.LOCAL)) == 1
    told = capsys.readouterr().err
    assert f"has no params.yaml, dvc.yaml, dvc.lock of {tmp_path}/profiles/flickr30k" in told
    assert "Run `repro run --profile flickr30k`, and commit" in told
