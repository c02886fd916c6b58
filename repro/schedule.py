"""`repro plan --workers 8`: the hours of a plan where stages run side by side, a job per stage and one per expert.

List scheduling (Graham, 1969): whenever a worker is free, it takes the job that is ready and from which the longest
path leads to the end. No schedule is shorter than the critical path, or than all hours shared out evenly; this one
takes at most 2 - 1/workers times the shortest.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repblend.report.table import in_columns
from repro.engines.base import On

if TYPE_CHECKING:
    from repro.plan import Priced

WORKERS = (1, 8, 64)
"""What a plan is shown for if nobody says how many there are."""


SHOWN = 8
"""Jobs of a critical path that are named."""


def workers_on(root: Path, on: On) -> int:
    """Return how many jobs a clone's settings let run at once, by `--on`; raises `ValueError` if they are wrong."""
    from repro.cluster.engines import LocalGpus
    from repro.cluster.settings import read_cluster

    cluster = read_cluster(root, on)
    return cluster.max_jobs if on is On.SLURM else LocalGpus(cluster).slots


@dataclass(frozen=True)
class Job:
    """What one worker does without a break."""

    name: str
    seconds: float
    needs: Sequence[str] = ()
    """Names of the jobs that have to be over before."""


@dataclass(frozen=True)
class Schedule:
    """When each job starts, on identical workers."""

    workers: int
    starts: Mapping[str, float]
    """Job -> seconds from the beginning, in the order of the starts."""
    seconds: float
    """Until the last job is over."""


def list_schedule(jobs: Sequence[Job], workers: int) -> Schedule:
    """Return a schedule in which no worker waits while a job is ready.

    Args:
        jobs: each after those that it needs; among jobs with equally long paths the first comes first.

    Raises:
        ValueError: there is no worker.
    """
    if workers < 1:
        raise ValueError(f"--workers: found {workers}, expected 1 or more")
    tails, waits = longest_paths(jobs), {job.name: len(set(job.needs)) for job in jobs}
    followers: dict[str, list[int]] = {job.name: [] for job in jobs}
    for index, job in enumerate(jobs):
        for name in set(job.needs):
            followers[name].append(index)
    ready = [(-tails[job.name], index) for index, job in enumerate(jobs) if not job.needs]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []  # when it is over, which job
    now, starts = 0.0, dict[str, float]()
    while ready or running:
        while ready and len(running) < workers:
            _, index = heapq.heappop(ready)
            starts[jobs[index].name] = now
            heapq.heappush(running, (now + jobs[index].seconds, index))
        now, ended = heapq.heappop(running)
        for index in followers[jobs[ended].name]:
            name = jobs[index].name
            waits[name] -= 1
            if not waits[name]:
                heapq.heappush(ready, (-tails[name], index))
    return Schedule(workers, starts, now)


def longest_paths(jobs: Sequence[Job]) -> dict[str, float]:
    """Return for each job the seconds of the longest path that begins with it."""
    after = dict.fromkeys((job.name for job in jobs), 0.0)
    paths = dict[str, float]()
    for job in reversed(jobs):
        paths[job.name] = job.seconds + after[job.name]
        for name in job.needs:
            after[name] = max(after[name], paths[job.name])
    return paths


def critical_path(jobs: Sequence[Job]) -> list[Job]:
    """Return the longest chain of jobs that need one another, the first first: no number of workers is faster."""
    paths, path = longest_paths(jobs), list[Job]()
    following: Iterable[Job] = [job for job in jobs if not job.needs]
    while longest := max(following, key=lambda job: paths[job.name], default=None):
        path.append(longest)
        following = [job for job in jobs if longest.name in job.needs]
    return path


def jobs_of(rows: Sequence["Priced"], parts_of: Callable[[str], int], profile: str = "") -> list[Job]:
    """Return the jobs of a plan: one per stage, and one per expert in place of the stages that train several. What is
    done takes no time, and neither does what nobody priced: a matter of minutes.

    Args:
        parts_of: from a stage, without its cell, to how many parts of its work can be done apart.
        profile: the first part of the jobs' names, where several are planned at once.
    """
    jobs, prefix = list[Job](), f"{profile}: " if profile else ""
    for row in rows:
        name, needs = prefix + row.stage.name, [prefix + needed for needed in row.stage.needs]
        if num := parts_of(row.stage.module):  # a last job puts them together
            parts = [Job(f"{name}.{part}", row.seconds / num, needs) for part in range(num)]
            jobs += [*parts, Job(name, 0.0, [job.name for job in parts])]
        else:
            jobs.append(Job(name, row.seconds, needs))
    return jobs


def schedule_text(jobs: Sequence[Job], workers: Iterable[int], in_words: Callable[[float], str]) -> str:
    """Return a line per number of workers, and the critical path.

    Args:
        in_words: from seconds to words.
    """
    total, path = sum(job.seconds for job in jobs), critical_path(jobs)
    head = ("workers", "time", "times as fast as one", "workers busy")
    lines = [(f"{each.workers}", in_words(each.seconds), f"{total / each.seconds:.1f}",
              f"{100 * total / each.seconds / each.workers:.0f} %")
             for each in (list_schedule(jobs, num) for num in workers) if each.seconds]
    if not lines:
        return ""
    longest = sum(job.seconds for job in path)
    return "\n".join([*in_columns([head, *lines]), f"Critical path, {in_words(longest)}, which no number of workers "
                      f"shortens: {' > '.join(_steps(path, in_words))}."])


def _steps(path: Sequence[Job], in_words: Callable[[float], str]) -> Iterator[str]:
    """Yield the jobs of a path that take time, in the order of the path, but no more than the longest few."""
    longest = sorted(path, key=lambda job: -job.seconds)[:SHOWN]
    for takes_long, jobs in itertools.groupby(path, key=lambda job: job.seconds > 0 and job in longest):
        if takes_long:
            yield from (f"{job.name} {in_words(job.seconds)}" for job in jobs)
