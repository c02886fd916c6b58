"""What running by jobs costs: the head's own processor time and memory as jobs grow in number, and the time that a
second worker saves. `make test-cluster` prints the numbers.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil
import pytest

from repblend.params.reading import read_yaml
from repblend.runtime.provenance import processor
from repro.cluster import head
from repro.cluster.engines import Queued, Seen
from repro.cluster.head import Way, run_on
from repro.cluster.jobs import RAN, Hardware, Ran, State, stamp
from repro.cluster.node import Task
from repro.cluster.settings import On
from repro.profiles import profile_of
from repro.workspace import only_run, workspace_environment
from tests.cluster.toy import Toy

MOST_SECONDS_A_JOB, MOST_MIB_A_JOB = 1.0, 0.25
MIB_OF_DVC = 50.0
"""What the first job loads."""


class Ready:
    """An engine whose jobs are done at once: it puts results of a run without jobs into DVC's run cache."""

    name, slots, in_advance = On.GPUS, 64, True

    def __init__(self, toy: Toy) -> None:
        self.runs, self.ready = toy.folder / ".dvc/cache/runs", toy.folder.parent / "runs"
        self.runs.rename(self.ready)
        self.where = {read_yaml(path)["cmd"]: path.parent for path in self.ready.glob("*/*/*")}
        self.stages = read_yaml(toy.folder / "dvc.yaml")["stages"]

    def submit(self, tasks: Sequence[Task]) -> list[str]:
        for task in tasks:
            entry = self.where[self.stages[task.stage]["cmd"]]
            shutil.copytree(entry, self.runs / entry.relative_to(self.ready))
            Ran(attempt=1, id=task.name, state=State.DONE, node="none", pid=1, gpus=None, started=stamp(),
                ended=stamp(), hardware=Hardware(processor=processor(), gpu=None)).write(task.folder / RAN)
        return [task.name for task in tasks]

    def states(self, ids: Iterable[str]) -> dict[str, Seen]:
        return {number: Seen(Queued.RUNNING) for number in ids}

    def release(self, number: str) -> None:
        """Nothing is taken."""


@pytest.mark.cluster
@pytest.mark.parametrize("num", [25, 200])
def test_the_head_takes_less_than_a_second_of_processor_time_a_job(num: int, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """dvc.lock has other outputs before, of another machine, which no cache has."""
    toy = Toy(tmp_path / "toy")
    toy.define(a=("mkdir -p records; cp input.txt records/a.txt", []),
               **{f"n{number}": (f"echo {number} > records/n{number}.txt", ["a"]) for number in range(num)})
    subprocess.run([sys.executable, "-m", "repro.guarded_dvc", "repro", "-q"], cwd=toy.folder, check=True,
                   env=workspace_environment(toy.folder))
    expected, lock = toy.hashes(), toy.folder / "dvc.lock"
    shutil.rmtree(toy.folder / "records")
    lock.write_text(re.sub(r"(outs:\n    - path: .*\n      hash: md5\n      md5: )\w+", rf"\g<1>{'ab' * 16}",
                           lock.read_text()))
    engine = Ready(toy)
    monkeypatch.setattr(head, "open_engine", lambda on, cluster: engine)
    profile = profile_of(toy.folder, "quickstart")
    before = psutil.Process().memory_info().rss
    began, wall = time.process_time(), time.monotonic()
    with only_run(toy.folder):
        assert run_on(Way(On.GPUS), [profile], [])
    seconds, mib = (time.process_time() - began) / num, (psutil.Process().memory_info().rss - before) / 2**20
    print(f"\n{num} jobs: {seconds:.3f} s of the head's processor time a job, {mib:.1f} MiB for all, "
          f"{time.monotonic() - wall:.1f} s in all")
    assert toy.hashes() == expected
    assert seconds < MOST_SECONDS_A_JOB and mib < MIB_OF_DVC + num * MOST_MIB_A_JOB


@pytest.mark.cluster
def test_two_workers_run_two_jobs_at_a_time(tmp_path: Path) -> None:
    seconds, locks, beside = {}, [], {}
    for gpus in ([0], [0, 1]):
        toy, times = Toy(tmp_path / str(len(gpus)) / "toy"), tmp_path / f"times-{len(gpus)}"
        times.mkdir()
        toy.settings(visible_gpus=gpus)
        toy.define(**{f"n{number}": (f"mkdir -p records; date +%s.%N > {times}/{number}; sleep 2; "
                                     f"date +%s.%N >> {times}/{number}; echo {number} > records/n{number}.txt", [])
                      for number in range(20)})
        began = time.monotonic()
        toy.run("--on", "gpus", patience_s=400)
        seconds[len(gpus)] = time.monotonic() - began
        spans = [tuple(map(float, each.read_text().split())) for each in times.iterdir()]
        assert len(spans) == 20
        beside[len(gpus)] = max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)
        locks.append(toy.read("dvc.lock").replace(str(times), "times"))
    print(f"\n20 stages of 2 s: {seconds[1]:.1f} s with one worker, {seconds[2]:.1f} s with two, "
          f"{seconds[1] / seconds[2]:.2f} times as fast")
    # How much faster that is depends on what else the machine does, so it is told, not asked.
    assert beside == {1: 1, 2: 2} and locks[0] == locks[1] and seconds[2] < seconds[1]
