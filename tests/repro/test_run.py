"""Running and stopping: exit codes are passed on, and a stop reaches every process below."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from repro.engines.local import run_stoppable
from repro.workspace import workspace_environment

ROOT = Path(__file__).parents[2]
FAMILY = """
import sys
from pathlib import Path
from repro.engines.local import run_stoppable
code = run_stoppable(["sh", "-c", "sleep 60 & echo $! > pid; wait"], Path.cwd())
sys.exit(code)
"""


@pytest.mark.parametrize("code", [0, 1, 7])
def test_the_exit_code_is_passed_on(tmp_path: Path, code: int) -> None:
    assert run_stoppable([sys.executable, "-c", f"raise SystemExit({code})"], tmp_path) == code


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run_stoppable(["true"], tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_reaches_every_process_below(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", FAMILY], cwd=tmp_path, env=workspace_environment(ROOT))
    pid_file, end = tmp_path / "pid", time.monotonic() + 20
    while time.monotonic() < end and not (pid_file.exists() and pid_file.read_text().strip()):
        time.sleep(0.02)
    grandchild = psutil.Process(int(pid_file.read_text()))
    os.kill(process.pid, number)
    assert process.wait(timeout=10) == 128 + number
    grandchild.wait(timeout=5)


def test_a_stop_while_the_command_is_being_started_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def start_as_a_stop_comes(*arguments: Any, **options: Any) -> subprocess.Popen:
        process = start(*arguments, **options)
        signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr(subprocess, "Popen", start_as_a_stop_comes)
    began = time.monotonic()
    assert run_stoppable(["sleep", "60"], tmp_path) == 128 + signal.SIGINT
    assert time.monotonic() - began < 30
