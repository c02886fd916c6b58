"""`repro cluster check`: what a node finds, each finding with its remedy, and what is said if nothing comes back."""

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from repblend.runtime.processes import only_writer
from repblend.runtime.provenance import processor
from repblend.store import write_json
from repro.cluster import check
from repro.cluster.check import (
    FOLDER,
    FOUND,
    LOCK,
    ON_THE_NODE,
    QUEUE,
    STAGE,
    Found,
    Probe,
    check_cache,
    check_data,
    check_hardware,
    check_image,
    check_locks,
    check_torch,
    findings_of,
    main,
)
from repro.cluster.engines import Queued, Seen
from repro.cluster.settings import On
from repro.doctor import Finding, found_by
from repro.profiles import profiles_of
from tests.cluster.toy import Toy

CONTENTS = {"python": "3.11.2", "debian": {"libc6": "2.36"}, "distributions": {}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clone as far as a node looks at it."""
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / ".dvc/cache").mkdir(parents=True)
    (tmp_path / ".dvc/cache" / f"{STAGE}-abc").write_text("abc")
    write_json(tmp_path / "docker/contents.json", CONTENTS)
    return tmp_path


def probe(root: Path, **changes: Any) -> Probe:
    return Probe(**{"root": str(root), "workspace": ".", "stage": STAGE, "part": None, "attempt": 1,
                    "snapshot": str(root), "expects": None, "token": "abc", "cache": str(root / ".dvc/cache"),
                    **changes})


def refused(number: int) -> Callable[..., None]:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))
    return refuse


# On the node.


def test_the_cache_is_seen_written_and_linked_and_left_as_it_was(root: Path) -> None:
    assert check_cache(probe(root)) == Finding("cache", "ok", f"{root}/.dvc/cache, hard links")
    assert [path.name for path in (root / ".dvc/cache").iterdir()] == [f"{STAGE}-abc"] and not any(
        (root / FOLDER).iterdir())


def test_a_cache_that_the_node_does_not_see_or_that_is_another_has_to_be_moved(root: Path) -> None:
    for other in (probe(root, cache="/nowhere/cache"), probe(root, token="abd")):
        found = check_cache(other)
        assert found.status == "mend" and "`dvc cache dir --local PATH`" in found.detail
    (root / ".dvc/cache" / f"{STAGE}-abc").write_text("of another clone")
    assert check_cache(probe(root)).status == "mend"


def test_a_cache_without_rights_has_to_be_mended_and_one_on_another_disk_is_a_note(
        root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refused(errno.EXDEV))
    assert check_cache(probe(root)).status == "note"
    monkeypatch.setattr(Path, "write_text", refused(errno.EROFS))
    found = check_cache(probe(root))
    assert found.status == "mend" and "cannot write there (Read-only file system)" in found.detail


def test_locks_that_reach_the_node_are_told_from_those_that_do_not(root: Path) -> None:
    with only_writer(root / FOLDER / LOCK, "the check"):
        assert check_locks(probe(root)).status == "ok"
    assert check_locks(probe(root)).status == "note"


def test_data_that_the_node_does_not_see_is_named(root: Path) -> None:
    assert check_data(probe(root)).detail == "comes with packages"
    assert check_data(probe(root, folders=(str(root),))) == Finding("data", "ok", str(root))
    found = check_data(probe(root, folders=(str(root), "/nowhere/f30k")))
    assert found.status == "mend" and found.detail.startswith("/nowhere/f30k: not seen by the node")


def apptainer(root: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Probe:
    """Put a program in the place of apptainer's, which notes its arguments and then does what the script says."""
    stub = root / "bin/apptainer"
    stub.parent.mkdir(exist_ok=True)
    stub.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {root}/arguments\n{script}\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}:/usr/bin:/bin")
    (root / "repblend.sif").touch()
    return probe(root, sif=str(root / "repblend.sif"))


def test_an_image_is_run_and_asked_what_it_is_made_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = apptainer(root, f"cat {root}/docker/contents.json", monkeypatch)
    assert check_image(good).status == "ok"
    assert (root / "arguments").read_text().split() == [
        "exec", "--containall", f"{root}/repblend.sif", "cat", "/opt/repblend/contents.json"]
    assert check_image(probe(root)).status == "ok"  # none is named


def test_an_image_that_is_broken_or_made_of_other_things_has_to_be_mended(
        root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = found_by(check_image, apptainer(root, "echo no such container >&2; exit 255", monkeypatch))
    assert broken.status == "mend" and "(no such container)" in broken.detail
    write_json(root / "other.json", CONTENTS | {"python": "3.12.1"})
    other = found_by(check_image, apptainer(root, f"cat {root}/other.json", monkeypatch))
    assert other.status == "mend" and "python 3.11.2 -> 3.12.1" in other.detail


def test_a_node_without_apptainer_is_a_finding(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "repblend.sif").touch()
    monkeypatch.setenv("PATH", "/nowhere")
    found = found_by(check_image, probe(root, sif=str(root / "repblend.sif")))
    assert found.status == "mend" and "apptainer: no such command on this node" in found.detail


@pytest.mark.parametrize(("said", "needs_gpu", "status", "words"), [
    ("2.9.1 1 NVIDIA H200\n", True, "ok", "torch 2.9.1 finds 1 GPU: NVIDIA H200"),
    ("2.9.1 0\n", True, "mend", "finds 0 GPUs, but compute.device in params.yaml is 'cuda'"),
    ("2.9.1 0\n", False, "ok", "computes on the processor"),
    ("2.9.1 4 NVIDIA A100\n", True, "note", "a stage uses one"),
    (None, True, "mend", "cannot be imported (no torch)")])
def test_torch_counts_the_gpus_of_the_job(root: Path, monkeypatch: pytest.MonkeyPatch, said: str | None,
                                          needs_gpu: bool, status: str, words: str) -> None:
    def run(command: Sequence[str], **options: object) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(command, said is None, said or "", "no torch\n")

    monkeypatch.setattr(subprocess, "run", run)
    found = check_torch(probe(root, needs_gpu=needs_gpu))
    assert found.status == status and words in found.detail


def test_a_node_of_another_kind_than_earlier_results_is_noted(root: Path) -> None:
    here = processor()
    assert check_hardware(probe(root, needs_gpu=False, earlier=(here,))) == Finding("hardware", "ok", here)
    found = check_hardware(probe(root, needs_gpu=False, earlier=("another one", here)))
    assert found.status == "note" and found.detail.startswith(f"{here}, while earlier runs were on another one: ")


def test_the_node_writes_down_a_finding_of_every_check_whatever_is_broken(root: Path) -> None:
    assert probe(root, needs_gpu=False)() == 0
    found = Found.read(root / FOLDER / FOUND)
    assert found.token == "abc" and len(found.findings) == len(ON_THE_NODE)
    statuses = {each["name"]: each["status"] for each in found.findings}
    assert statuses["packages"] == "mend"  # this clone has no list of them
    assert statuses["gpu"] in ("ok", "note") and all(each["detail"] for each in found.findings)


# On the machine that asks.


class Queue:
    """An engine whose job does something, or nothing, and is over then."""

    name, in_advance, slots = On.SLURM, True, 4

    def __init__(self, work: Callable[[Probe], object]) -> None:
        self.work, self.cancelled = work, list[str]()

    def submit(self, tasks: Sequence[Probe]) -> list[str]:
        self.work(tasks[0])
        return ["7"]

    def states(self, ids: Iterable[str]) -> dict[str, Seen]:
        return dict.fromkeys(ids, Seen(Queued.ENDED))

    def cancel(self, ids: Iterable[str]) -> None:
        self.cancelled += ids


def asked(root: Path, monkeypatch: pytest.MonkeyPatch, engine: Queue) -> dict[str, Finding]:
    monkeypatch.setattr(check, "open_engine", lambda on, cluster: engine)
    monkeypatch.setattr(check, "SECONDS_FOR_A_FILE", 0.0)
    monkeypatch.setattr(check, "SECONDS_BETWEEN_LOOKS", 0.0)
    (root / "cluster.yaml").write_text("partition: gpu\n")
    return {each.name: each for each in findings_of(root, [], On.SLURM)}


def answer(seconds: float = 0.0, token: str | None = None) -> Callable[[Probe], None]:
    def write(job: Probe) -> None:
        Found(token=token or job.token, seconds=time.time() + seconds, findings=[
            asdict(Finding("node", "ok", "node0"))]).write(job.place / FOUND)
    return write


def test_what_the_node_found_is_passed_on_and_its_files_are_removed(root: Path, monkeypatch: pytest.MonkeyPatch
                                                                    ) -> None:
    engine = Queue(answer())
    found = asked(root, monkeypatch, engine)
    assert [(each.name, each.status) for each in found.values()] == [
        ("settings", "ok"), ("node", "ok"), ("clocks", "ok")]
    assert [path.name for path in (root / ".dvc/cache").iterdir()] == [f"{STAGE}-abc"]


def test_clocks_that_differ_are_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(root, monkeypatch, Queue(answer(seconds=-300)))["clocks"].detail.startswith(
        "the node's and this machine's are 300 s apart")


def test_the_answer_to_an_earlier_check_is_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(root, monkeypatch, Queue(answer(token="of before")))["shared folder"].status == "mend"


def test_a_job_without_a_trace_ran_where_the_folder_is_not_seen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(root, monkeypatch, Queue(lambda job: None))["shared folder"]
    assert found.status == "mend" and f"job 7 ended without a trace in {root}" in found.detail


def test_a_job_that_failed_before_it_looked_around_is_shown_by_its_last_words(root: Path,
                                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: Probe) -> None:
        (root / QUEUE).mkdir(parents=True)
        (root / QUEUE / "7_0_log.out").write_text("\nmodule: \x1b[31mcommand not found\n")

    found = asked(root, monkeypatch, Queue(fail))["job"]
    assert found.status == "mend" and "module: \N{REPLACEMENT CHARACTER}[31mcommand not found" in found.detail


def test_ctrl_c_takes_the_job_out_of_the_queue(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    engine = Queue(lambda job: None)
    monkeypatch.setattr(check.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        asked(root, monkeypatch, engine)
    assert engine.cancelled == ["7"]


def test_no_job_is_queued_while_the_settings_are_wrong(root: Path) -> None:
    (found,) = findings_of(root, [], On.SLURM)
    assert found.status == "mend" and "cluster.yaml: no such file" in found.detail
    (root / "cluster.yaml").write_text("partitoin: gpu\n")
    (found,) = findings_of(root, [], On.SLURM)
    assert found.status == "mend" and "partitoin" in found.detail


def test_two_checks_of_a_clone_do_not_meet(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with only_writer(root / FOLDER / LOCK, "the check"), pytest.raises(ValueError, match="by another run"):
        asked(root, monkeypatch, Queue(answer()))


# For real.


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone") / "clone"
    folder.mkdir()
    toy = Toy(folder)
    (folder / "requirements").mkdir()
    (folder / "requirements/lock.txt").write_text("\n")
    toy.settings(visible_gpus=[3])
    profiles_of(folder, "quickstart")
    return folder


def test_this_machine_is_fit_as_a_node(clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
                                       ) -> None:
    monkeypatch.chdir(clone)
    assert main("quickstart", On.GPUS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Ready: `repro run --profile quickstart --on gpus`"
    assert any(line.startswith("ok    node: ") and "CUDA_VISIBLE_DEVICES 3" in line for line in lines)
    assert sorted(path.name for path in (clone / FOLDER).iterdir()) == [LOCK, FOUND]
