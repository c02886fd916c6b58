"""The first process of a container: here without one, for what it does is the same."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from repro.engines.guard import CLIENT_GONE
from tests.container.toy import wait_until

ROOT = Path(__file__).parents[2]
FAMILY = "sleep 60 & echo $! > pid; wait"
STUBBORN = "trap '' TERM; echo $$ > pid; while true; do sleep 0.1; done"


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[IO[str]]:
    """The lock, held as the client holds it."""
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def start(folder: Path, command: str) -> subprocess.Popen:
    """Start the guard with a shell command, in the folder of its lock."""
    return subprocess.Popen([sys.executable, "-m", "repro.engines.guard", "lock", "sh", "-c", command], cwd=folder,
                            env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)


def grandchild(folder: Path) -> psutil.Process:
    wait_until(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip() != "")
    return psutil.Process(int((folder / "pid").read_text()))


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_commands(command: str, code: int, lock: IO[str], tmp_path: Path) -> None:
    assert start(tmp_path, command).wait(timeout=20) == code


def test_a_stop_reaches_all_processes(lock: IO[str], tmp_path: Path) -> None:
    guard = start(tmp_path, FAMILY)
    below = grandchild(tmp_path)
    guard.send_signal(signal.SIGTERM)
    assert guard.wait(timeout=20) == 128 + signal.SIGTERM
    below.wait(timeout=5)


def test_when_the_client_is_gone_all_processes_end(lock: IO[str], tmp_path: Path) -> None:
    guard = start(tmp_path, FAMILY)
    below = grandchild(tmp_path)
    time.sleep(0.5)
    assert guard.poll() is None and below.is_running()
    lock.close()
    assert guard.wait(timeout=20) == CLIENT_GONE
    assert "that started this container is gone: stopping" in guard.stderr.read()
    below.wait(timeout=5)


def test_a_new_run_has_to_wait_until_a_stubborn_process_has_ended(lock: IO[str], tmp_path: Path) -> None:
    guard = start(tmp_path, STUBBORN)
    below = grandchild(tmp_path)
    lock.close()
    time.sleep(0.5)
    with (tmp_path / "lock").open() as mine, pytest.raises(BlockingIOError):
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert guard.wait(timeout=20) == CLIENT_GONE
    below.kill()  # in a container it ends with the first process
