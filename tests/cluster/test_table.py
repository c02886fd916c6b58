"""`repro jobs`: what files and engine say together, when a job ends, and how one is ended."""

import datetime
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from repro.cluster import table
from repro.cluster.engines import JobEngine, LocalGpus, Queued, Seen, process_id
from repro.cluster.jobs import (
    CANCELLED,
    JOBS,
    Cancellation,
    Hardware,
    Job,
    Ran,
    State,
    Submission,
    job_folder,
    read_job,
    read_jobs,
    stamp,
)
from repro.cluster.settings import Cluster, On
from repro.cluster.table import LOST, Row, cancel_jobs, chosen, fitting, last_progress, main, rows_of, table_text

H200 = Hardware(processor="a processor", gpu="NVIDIA H200")
WAITS, RUNS, GONE = Seen(Queued.PENDING, "PENDING"), Seen(Queued.RUNNING, "RUNNING", "node1"), Seen(Queued.ENDED)


def job(workspace: Path, name: str, state: State | None = State.RUNNING, id: str | None = "7", on: str = "slurm",
        output: str = "", **more: str) -> Job:
    """Write the files of a job."""
    stage, _, part = name.partition(".")
    folder = job_folder(workspace, name)
    Submission(stage=stage, part=int(part) if part else None, engine=on, id=id, attempt=1, submitted=stamp(),
               key="0" * 64, log=f"{JOBS}/{name}/output.log").write(folder / "submitted.json")
    if state is not None:
        Ran(attempt=1, id=id or "", state=state, node="node0", pid=1, hardware=H200, gpus="0",
            started=stamp(), **more).write(folder / "ran.json")
        (folder / "output.log").write_text(output)
    return read_job(folder)


class Queue:
    """An engine that says what it was given."""

    def __init__(self, **seen: Seen) -> None:
        self.seen = {number.removeprefix("n"): state for number, state in seen.items()}
        self.cancelled: list[str] = []

    def states(self, ids: Iterable[str]) -> dict[str, Seen]:
        return {number: self.seen.get(number, GONE) for number in ids}

    def cancel(self, ids: Iterable[str]) -> None:
        self.cancelled += ids


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "conf/profiles").mkdir(parents=True)
    (tmp_path / "cluster.yaml").write_text("partition: gpu\n")
    return tmp_path


def use(monkeypatch: pytest.MonkeyPatch, engine: JobEngine) -> None:
    monkeypatch.setattr(table, "open_engine", lambda on, cluster: engine)


@pytest.mark.parametrize(("state", "seen", "word"), [
    (None, WAITS, "waiting"), (None, RUNS, "running"), (None, GONE, LOST), (State.RUNNING, RUNS, "running"),
    (State.RUNNING, WAITS, "waiting"), (State.RUNNING, GONE, LOST), (State.DONE, GONE, "done"),
    (State.DONE, RUNS, "done"), (State.FAILED, GONE, "failed"), (State.KILLED, GONE, "killed"),
    (None, None, "waiting")])
def test_files_and_engine_together_say_what_became_of_a_job(root: Path, state: State | None, seen: Seen | None,
                                                            word: str) -> None:
    assert Row(job(root, "encode", state), seen).state == word


def test_engines_are_asked_only_for_what_has_not_ended(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(root, "encode", State.DONE, "1"), job(root, "experts.0", State.RUNNING, "2"),
            job(root, "experts.1", None, "3"), job(root, "experts.2", None, None)]
    asked: list[str] = []
    engine = Queue(n2=RUNS, n3=WAITS)
    monkeypatch.setattr(engine, "states", lambda ids: asked.extend(ids) or Queue.states(engine, asked))
    use(monkeypatch, engine)
    assert [row.state for row in rows_of(root, jobs)] == ["done", "running", "waiting", "waiting"]
    assert asked == ["2", "3"]


def test_a_job_that_ends_between_the_two_questions_is_not_lost(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = job(root, "encode")
    job(root, "encode", State.DONE)
    use(monkeypatch, Queue())
    (row,) = rows_of(root, [before])
    assert row.state == "done"


def test_without_the_engine_the_files_are_shown_and_it_is_said(root: Path, monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert [row.state for row in rows_of(root, [job(root, "encode")])] == ["running"]
    assert "only the jobs' own files can be read here. sbatch, " in capsys.readouterr().err


@pytest.mark.parametrize(("output", "last"), [
    ("", ""), ("begun\nsecond\n\n", "second"),
    ("encode: 3/9 image, 1.0 image/s, about 6 s left\nwarning: slow\n",
     "encode: 3/9 image, 1.0 image/s, about 6 s left"),
    ("encode: 3/9 image, 1.0 image/s, about 6 s left\nencode: 9 image done in 9.0 s\nwritten\n", "written"),
    ("a bar\rencode: 5/9 image, 1.0 image/s, about 4 s left", "encode: 5/9 image, 1.0 image/s, about 4 s left")])
def test_the_last_progress_is_the_one_that_says_how_long(tmp_path: Path, output: str, last: str) -> None:
    (tmp_path / "output.log").write_text("x" * 20_000 + "\n" + output if output else output)
    assert last_progress(tmp_path / "output.log") == last


def test_progress_lines_are_those_that_stages_print(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
                                                    ) -> None:
    from repblend import progress

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOG_LINES", 0.0)
    with caplog.at_level("INFO"):
        assert list(progress.progress(range(3), "encode", "image")) == [0, 1, 2]
    assert table.LEFT.search(caplog.messages[0]) and table.OVER.search(caplog.messages[-1])


def test_the_end_is_that_of_the_progress_line_since_it_was_printed(root: Path) -> None:
    found = job(root, "encode", output="encode: 3/9 image, 1.0 image/s, about 3600 s left\n")
    half_past = datetime.datetime(2026, 3, 1, 12, 30).timestamp()
    os.utime(found.output, (half_past, half_past))
    assert "Sun 01 Mar 13:30" in table_text(root, [Row(found, RUNS)])
    assert "13:30" not in table_text(root, [Row(found, GONE)])
    found = job(root, "encode", output="encode: 8/9 image, 1.0 image/s, about 1 s left\n")
    assert re.search(r" \d\d:\d\d +encode: 8/9", table_text(root, [Row(found, RUNS)]))


def test_the_table_names_what_failed_why_and_where_its_output_is(root: Path) -> None:
    failed = job(root, "encode", State.FAILED, reason="images/3.png: cannot be read")
    text = table_text(root, [Row(failed, None), Row(job(root, "distill@lors-50"), RUNS)])
    assert f"encode failed: images/3.png: cannot be read; all of it: {failed.output}" in text
    assert [line.split()[:3] for line in text.splitlines()[:3]] == [
        ["stage", "state", "node"], ["encode", "failed", "node0"], ["distill@lors-50", "running", "node0"]]
    assert "NVIDIA H200 (0)" in text and "1 failed, 1 running." in text


def test_what_a_job_prints_moves_no_cursor(root: Path) -> None:
    text = table_text(root, [Row(job(root, "encode", output="\x1b[2J\x1b]0;title\x07 a \u202e b\n"), RUNS)])
    assert not {"\x1b", "\x07", "\u202e"} & {*text}


def test_a_small_terminal_shows_what_runs_and_counts_the_rest(root: Path) -> None:
    rows = [Row(job(root, f"experts.{number}", state), seen) for number, (state, seen) in enumerate([
        (State.DONE, None), (State.RUNNING, RUNS), (None, WAITS), (State.FAILED, None), (State.DONE, None)])]
    assert [row.job.name for row in fitting(rows, 3)] == ["experts.1", "experts.2", "experts.3"]
    assert "2 done, 1 running, 1 waiting, 1 failed; 3 of them are not shown." in table_text(root, rows, lines=8)
    assert fitting(rows, 9) == rows


def test_jobs_of_several_profiles_are_told_apart(root: Path) -> None:
    rows = [Row(job(folder, "encode"), RUNS) for folder in (root, root / "profiles/coco")]
    assert [line.split()[0] for line in table_text(root, rows).splitlines()[1:3]] == ["quickstart:", "coco:"]


def test_without_a_run_that_submits_further_jobs_the_table_says_so(root: Path) -> None:
    from repblend.runtime.processes import only_writer
    from repro.workspace import LOCK

    rows = [Row(job(root, "encode"), RUNS)]
    assert "Nobody submits what comes next" in table_text(root, rows)
    with only_writer(root / LOCK, "workspace"):
        assert "Nobody submits" not in table_text(root, rows)
    assert "Nobody submits" not in table_text(root, [Row(job(root, "encode", State.DONE), None)])


# Which jobs, and cancelling them.


def test_stages_and_single_jobs_can_be_named_and_others_are_an_error(root: Path) -> None:
    for name in ("experts.1", "experts.0", "encode"):
        job(root, name)
    assert [each.name for each in chosen([root], [])] == ["experts.1", "experts.0", "encode"]
    assert [each.name for each in chosen([root], ["experts"])] == ["experts.1", "experts.0"]
    assert [each.name for each in chosen([root], ["experts.0", "encode"])] == ["experts.0", "encode"]
    with pytest.raises(ValueError, match=r"walk: no such job; expected some of encode, experts, experts.0, experts.1"):
        chosen([root], ["walk"])


def test_a_kind_of_stage_names_the_jobs_of_all_its_cells(root: Path) -> None:
    for name in ("distill@lors-50", "distill@repblend-50", "evaluate@repblend-50"):
        job(root, name)
    assert [each.submission.stage for each in chosen([root], ["distill"])] == ["distill@lors-50", "distill@repblend-50"]
    assert [each.submission.stage for each in chosen([root], ["distill@lors-50"])] == ["distill@lors-50"]


def test_cancelling_is_written_down_before_the_engine_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(root, "encode", State.DONE, "1"), job(root, "experts.0", id="2"), job(root, "experts.1", None, "3")]
    engine = Queue(n2=RUNS, n3=WAITS)
    noted: list[bool] = []
    monkeypatch.setattr(engine, "cancel", lambda ids: noted.extend(
        (each.folder / CANCELLED).exists() for each in jobs) or engine.cancelled.extend(ids))
    use(monkeypatch, engine)
    assert cancel_jobs(root, jobs).startswith("Cancelled: experts.0, experts.1. ")
    assert (noted, engine.cancelled) == ([False, True, True], ["2", "3"])
    assert [each.state for each in read_jobs(root)] == [State.DONE, State.CANCELLED, State.CANCELLED]
    assert cancel_jobs(root, list(read_jobs(root))).startswith("Nothing to cancel")


def test_the_next_attempt_is_not_cancelled(root: Path) -> None:
    found = job(root, "encode")
    Cancellation(attempt=0, asked=stamp()).write(found.folder / CANCELLED)
    assert read_job(found.folder).state is State.RUNNING


@pytest.mark.parametrize("state", [State.DONE, State.FAILED])
def test_what_had_ended_before_it_was_cancelled_stays_so(root: Path, state: State) -> None:
    found = job(root, "encode", state)
    Cancellation(attempt=1, asked=stamp()).write(found.folder / CANCELLED)
    assert read_job(found.folder).state is state


def test_nothing_is_cancelled_if_an_engine_cannot_be_reached(root: Path, monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture) -> None:
    found = job(root, "encode")
    monkeypatch.chdir(root)
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([], None, cancel=True, once=False) == 1
    assert "repro jobs: sbatch, " in capsys.readouterr().err and read_job(found.folder).state is State.RUNNING


def test_a_process_of_this_machine_is_ended_with_its_children(root: Path, monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '60'])"])
    try:
        job(root, "encode", None, on="gpus", id=process_id(process.pid))
        use(monkeypatch, LocalGpus(Cluster(visible_gpus=(0,))))
        monkeypatch.chdir(root)
        assert main([], "quickstart", cancel=True, once=False) == 0
        assert process.wait(timeout=10) == -9
    finally:
        process.kill()
        process.wait()
    assert "Cancelled: encode. " in capsys.readouterr().out
    assert main([], None, cancel=False, once=True) == 0 and "1 cancelled." in capsys.readouterr().out


def test_processes_of_another_machine_are_neither_judged_nor_cancelled_here(root: Path) -> None:
    found = job(root, "encode", on="gpus", id="1-1")  # on node0
    assert [row.state for row in rows_of(root, [found])] == ["running"]
    with pytest.raises(ValueError, match=r"encode \(on node0\): processes of another machine"):
        cancel_jobs(root, [found])


def test_a_table_in_a_terminal_refreshes_until_nothing_is_open(root: Path, monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture) -> None:
    job(root, "encode", None)
    use(monkeypatch, Queue(n7=WAITS))
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(table.time, "sleep", lambda seconds: job(root, "encode", State.DONE))
    assert main([], None, cancel=False, once=False) == 0
    told = capsys.readouterr().out
    assert told.count("\x1b[2J") == 2 and told.endswith("1 done.\n")


def test_leaving_the_table_ends_no_job(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
                                       ) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    job(root, "encode", None)
    engine = Queue(n7=WAITS)
    use(monkeypatch, engine)
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(table.time, "sleep", interrupt)
    assert main([], None, cancel=False, once=False) == 0
    assert capsys.readouterr().out.endswith("The jobs go on.\n") and engine.cancelled == []


def test_a_clone_without_jobs_says_how_there_come_some(root: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(root)
    assert main([], None, cancel=False, once=False) == 0
    assert capsys.readouterr().out == "No jobs yet. `repro run --on slurm` or `repro run --on gpus` submits them.\n"
    assert main([], "none", cancel=False, once=False) == 1 and "expected one of" in capsys.readouterr().err


def test_both_engines_are_known_to_the_table() -> None:
    assert [*On] == ["slurm", "gpus"]
