"""One writer per output, and no stage that outlives its run: with real processes and real kills."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from repblend.runtime.processes import EXIT_CODE, _lives, only_writer

HOLDER = """
import sys, time
from pathlib import Path
from repblend.runtime.processes import only_writer
with only_writer(Path(sys.argv[1]), "stage x"):
    print("holding", flush=True)
    time.sleep(60)
"""


def wait_until(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def start_holder(lock: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "holding\n"
    return process


def test_a_second_writer_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    holder = start_holder(tmp_path / "a.lock")
    try:
        with pytest.raises(ValueError, match=rf"stage x is being written by another run \(process {holder.pid} on"), \
                only_writer(tmp_path / "a.lock", "stage x", wait_seconds=0.2):
            pytest.fail("two writers at once")
    finally:
        holder.kill()
        holder.wait()


def test_a_killed_holder_frees_the_lock_by_itself(tmp_path: Path) -> None:
    holder = start_holder(tmp_path / "a.lock")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_writer(tmp_path / "a.lock", "stage x", wait_seconds=0.2):
        pass


def test_a_writer_waits_for_an_orphan_that_is_about_to_end(tmp_path: Path) -> None:
    holder = start_holder(tmp_path / "a.lock")
    subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {holder.pid}"]).wait()
    with only_writer(tmp_path / "a.lock", "stage x", wait_seconds=5.0):
        pass
    holder.wait()


GUARDED = """
import os, time
from pathlib import Path
from repblend.runtime.processes import stop_with_the_runner
stop_with_the_runner()
Path({pid!r}).write_text(str(os.getpid()))
time.sleep(60)
"""


def start_under(runner: str, tmp_path: Path) -> tuple[subprocess.Popen, psutil.Process]:
    """Start a guarded process as dvc starts a stage: a runner, a shell (a command keeps it from `exec`), the stage."""
    code = GUARDED.format(pid=str(tmp_path / "pid"))
    (tmp_path / "stage.py").write_text(code)
    script = tmp_path / runner
    script.write_text(f"import subprocess\nsubprocess.call(\"'{sys.executable}' '{tmp_path / 'stage.py'}'; true\", "
                      "shell=True)\n")
    process = subprocess.Popen([sys.executable, script], env=os.environ)
    assert wait_until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text() != "")
    return process, psutil.Process(int((tmp_path / "pid").read_text()))


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("runner", ["dvc", "repro", "repro.guarded_dvc"])
def test_a_stage_ends_when_its_run_is_killed(runner: str, tmp_path: Path) -> None:
    run, stage = start_under(runner, tmp_path)
    time.sleep(1.2)
    assert not gone(stage)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert wait_until(lambda: gone(stage), seconds=5.0)


def test_a_stage_ends_when_the_shell_between_is_killed(tmp_path: Path) -> None:
    run, stage = start_under("dvc", tmp_path)
    stage.parent().kill()
    assert wait_until(lambda: gone(stage), seconds=5.0)
    run.wait()


def test_a_stage_started_by_hand_is_left_alone(tmp_path: Path) -> None:
    run, stage = start_under("something-else", tmp_path)
    run.send_signal(signal.SIGKILL)
    run.wait()
    time.sleep(1.5)
    assert not gone(stage)
    stage.kill()


def test_a_stage_whose_run_was_killed_before_the_guard_stood_ends_at_once(tmp_path: Path) -> None:
    code = GUARDED.format(pid=str(tmp_path / "pid"))
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"DVC_STAGE": "experts"}, capture_output=True,
                          text=True, check=False, timeout=30)
    assert done.returncode == EXIT_CODE and "the run that started this stage is gone" in done.stderr
    assert not (tmp_path / "pid").exists()


def test_a_process_that_ends_while_it_is_looked_at_counts_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    process = psutil.Process()

    def ended() -> str:
        raise psutil.NoSuchProcess(process.pid)

    monkeypatch.setattr(process, "status", ended)
    assert not _lives(process)
