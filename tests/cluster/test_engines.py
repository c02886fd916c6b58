"""Engines and the head without a cluster: what must not be taken for gone, for free, or for one's own."""

import os
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from repblend.runtime.provenance import BESIDE_VARIABLE
from repro.cluster import head
from repro.cluster.engines import SLEEP_BETWEEN_OPERATIONS, LocalGpus, Queued, Seen, gpus_here, here
from repro.cluster.head import Course, Way, rounds
from repro.cluster.jobs import Hardware, Ran, State, Submission, is_running, job_folder, process_id, stamp
from repro.cluster.node import Task
from repro.cluster.settings import Cluster, On


@pytest.fixture
def process() -> Iterator[subprocess.Popen]:
    """A process that sleeps."""
    started = subprocess.Popen(["sleep", "60"])
    yield started
    started.kill()
    started.wait()


def test_a_process_is_known_by_its_start_though_the_clock_is_set(process: subprocess.Popen,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    number = process_id(process.pid)
    monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: time.time())
    assert is_running(number) and not is_running(f"{process.pid}-1")
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(number)  # though it is still listed
    process.wait()
    assert process_id(process.pid) == f"{process.pid}-0" and not is_running(number)


def test_only_visible_gpus_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n3\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_here() == [0, 1, 2, 3]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert gpus_here() == [1, 3] and LocalGpus(Cluster()).slots == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_here() == []


@pytest.mark.parametrize("slots", [1, 2])
def test_threads_sleep_between_operations_where_another_job_may_want_the_processor(slots: int) -> None:
    setup = LocalGpus(Cluster(visible_gpus=tuple(range(slots)), setup=["module load x"])).setup
    assert (SLEEP_BETWEEN_OPERATIONS in setup) == (slots > 1) and setup[-1] == "module load x"
    assert f"export {BESIDE_VARIABLE}={slots}" in setup  # so that their seconds are not taken for those of one alone


@dataclass(frozen=True)
class Sleep(Task):
    """A job that says nothing."""

    def __call__(self) -> int:
        time.sleep(60)
        return 0


def test_a_job_that_has_said_nothing_yet_is_found_by_the_next_head(tmp_path: Path) -> None:
    def task(stage: str, part: int | None = None) -> Sleep:
        root = str(Path(__file__).parents[2])
        return Sleep(root=str(tmp_path), workspace=".", stage=stage, part=part, attempt=1, snapshot=root, expects=None,
                     on=On.GPUS)

    settings = Cluster(visible_gpus=(0, 1))
    first = LocalGpus(settings)
    numbers = first.submit([task("encode"), task("experts", 1)])
    try:
        other = LocalGpus(settings)
        assert [other.find(task("encode")), other.find(task("experts", 1))] == numbers
        assert other.find(task("experts", 0)) is None and other.find(task("distill")) is None
    finally:
        first.cancel(numbers)
    deadline = time.monotonic() + 10
    while any(map(is_running, numbers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert other.find(task("encode")) is None


class Silent:
    """A queue that does not answer at first."""

    name, in_advance, slots = On.SLURM, True, 1

    def __init__(self, silences: int) -> None:
        self.silences = silences

    def states(self, ids: Iterable[str]) -> dict[str, Seen]:
        self.silences -= 1
        if self.silences >= 0:
            raise ValueError("squeue failed (Socket timed out)")
        return dict.fromkeys(ids, Seen(Queued.ENDED))


class OneJob:
    """A workspace with one job that is over once the queue says so."""

    def __init__(self) -> None:
        self.ready = deque[str]()
        self.open: dict[str, Any] = {"encode": SimpleNamespace(number="7")}

    def look(self, seen: Mapping[str, Seen]) -> bool:
        if seen:
            self.open.clear()
        return bool(seen)

    def submit(self, free: int) -> int:
        return 0


def test_a_queue_that_does_not_answer_for_a_while_ends_no_run(monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(head, "SHORTEST_ROUND_S", 0.0)
    course: Any = OneJob()
    rounds([course], Silent(3), 0.0)
    assert capsys.readouterr().out.count("squeue failed (Socket timed out)") == 3 and not course.open
    monkeypatch.setattr(head, "PATIENCE_S", 0.0)
    with pytest.raises(ValueError, match="Socket timed out"):
        rounds([OneJob()], Silent(3), 0.0)


def test_a_job_of_another_machine_is_not_started_a_second_time(tmp_path: Path) -> None:
    folder = job_folder(tmp_path, "encode")
    Submission(stage="encode", part=None, engine="gpus", id="7-1", attempt=1, submitted=stamp(), key="0" * 64,
               log="output.log").write(folder / "submitted.json")
    ran = Ran(attempt=1, id="7-1", state=State.RUNNING, node="another", pid=7, gpus="0", started=stamp(),
              hardware=Hardware(processor="a processor", gpu=None))
    ran.write(folder / "ran.json")
    settings = Cluster(visible_gpus=(0,))
    course = Course(None, None, LocalGpus(settings), settings, Way(On.GPUS))  # type: ignore[arg-type]
    task = Task(root=str(tmp_path), workspace=".", stage="encode", part=None, attempt=1, snapshot="", expects=None,
                on=On.GPUS)
    with pytest.raises(ValueError, match="may still go on, on another"):
        course.adopt(task, "0" * 64)
    for changed in ({"node": here()}, {"state": State.DONE}):
        ran.model_copy(update=changed).write(folder / "ran.json")
        assert not course.adopt(task, "0" * 64)


def test_profiles_have_checkouts_of_their_own(tmp_path: Path) -> None:
    def checkout(workspace: str) -> Path:
        return Task(root=str(tmp_path), workspace=workspace, stage="encode", part=None, attempt=1, snapshot="",
                    expects=None).checkout

    assert len({checkout(place) for place in (".", "profiles/root", "profiles/coco")}) == 3
    assert os.fspath(checkout(".")).endswith("/quickstart/encode")
