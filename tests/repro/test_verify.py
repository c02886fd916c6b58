"""Verdicts of `repro verify`: same, different, missing, unknown; and when it refuses."""

import shutil
import subprocess
from pathlib import Path

import pytest

from repro import verify
from repro.runner import Engine, Wishes
from repro.verify import Verdict, compare, output_hashes

ROOT = Path(__file__).parents[2]
LOCK = """\
schema: '2.0'
stages:
  prepare:
    cmd: x
    outs:
    - {path: data, md5: aa.dir, nfiles: 3}
    - {path: m.json, md5: bb}
  report:
    cmd: y
    outs:
    - {path: page.html, md5: cc}
"""


def test_hashes_of_all_outputs_are_read(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(LOCK)
    assert output_hashes(tmp_path / "dvc.lock") == {
        ("prepare", "data"): "aa.dir", ("prepare", "m.json"): "bb", ("report", "page.html"): "cc"}


@pytest.mark.parametrize("content", ["", "[]", "stages: 3", "schema: '2.0'"])
def test_a_lock_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "dvc.lock").write_text(content)
    with pytest.raises(ValueError, match=r"dvc\.lock: expected DVC's lock file"):
        output_hashes(tmp_path / "dvc.lock")


def test_every_output_of_the_stages_run_gets_its_verdict() -> None:
    expected = {("a", "same"): "1", ("a", "other"): "2", ("a", "gone"): "3", ("b", "not run"): "4"}
    found = {("a", "same"): "1", ("a", "other"): "9", ("a", "new"): "5", ("b", "not run"): "4"}
    assert [str(verdict).split()[0] for verdict in compare(expected, found, {"a"})] == [
        "MISSING", "UNKNOWN", "DIFFERS", "same"]
    assert [verdict.same for verdict in compare(expected, found, {"a"})] == [False, False, False, True]


def test_a_difference_names_stage_and_both_hashes() -> None:
    assert str(Verdict("encode", "features", "12", "34")) == (
        "DIFFERS  features (stage encode: expected 12, found 34)")


@pytest.mark.parametrize(("verdicts", "code"), [
    ([Verdict("a", "x", "1", "1")], 0), ([Verdict("a", "x", "1", "1"), Verdict("a", "y", "1", "2")], 1), ([], 1)])
def test_the_exit_code_is_zero_only_if_all_that_was_made_is_the_same(verdicts: list[Verdict], code: int) -> None:
    assert verify._report(verdicts) == code


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
    assert verify.main([], "flickr30k", Wishes(Engine.LOCAL)) == 1
    told = capsys.readouterr().err
    assert f"has no params.yaml, dvc.yaml, dvc.lock of {tmp_path}/profiles/flickr30k" in told
    assert "Run `repro run --profile flickr30k`, and commit" in told
