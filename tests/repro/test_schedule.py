"""`repro plan --workers`: schedules against closed forms, the shortest that exists, and bounds."""

import itertools
import random
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import pytest

from repro import plan
from repro.engines.base import On
from repro.estimates import Estimate, PlannedStage, State
from repro.pipeline import yaml_text
from repro.plan import Priced, duration
from repro.profiles import Profile, compose
from repro.schedule import (
    Job,
    Schedule,
    critical_path,
    jobs_of,
    list_schedule,
    longest_paths,
    schedule_text,
    workers_on,
)
from tests.docs.documents import ROOT


def graph(seed: int, num: int, density: float = 0.3) -> list[Job]:
    """Return a random graph of jobs of whole seconds."""
    draw = random.Random(seed)
    return [Job(f"{index}", draw.randint(1, 9), [f"{before}" for before in range(index) if draw.random() < density])
            for index in range(num)]


def check(jobs: Sequence[Job], found: Schedule) -> None:
    """Check a schedule from its definition: all jobs, none before those that it needs, never more than workers."""
    ends = {job.name: found.starts[job.name] + job.seconds for job in jobs}
    assert found.starts.keys() == ends.keys() and found.seconds == max(ends.values())
    assert all(found.starts[job.name] >= ends[needed] for job in jobs for needed in job.needs)
    for moment in found.starts.values():
        assert sum(found.starts[name] <= moment < ends[name] for name in ends) <= found.workers


def shortest(jobs: Sequence[Job], workers: int) -> float:
    """Return the least time that any schedule takes: in the order of its starts, each job on the worker that is free
    first. Every order that keeps what jobs need is tried.
    """
    best = float("inf")
    for order in itertools.permutations(jobs):
        free, ends = [0.0] * workers, dict[str, float]()
        for job in order:
            if not all(name in ends for name in job.needs):
                break
            free.sort()
            free[0] = ends[job.name] = max([free[0], *(ends[name] for name in job.needs)]) + job.seconds
        else:
            best = min(best, max(ends.values()))
    return best


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_a_chain_takes_its_sum_whatever_the_workers(workers: int) -> None:
    jobs = [Job(f"{index}", index + 1.0, [f"{index - 1}"] if index else []) for index in range(10)]
    assert list_schedule(jobs, workers).seconds == 55.0 and critical_path(jobs) == jobs


@pytest.mark.parametrize(("num", "workers"), [(20, 1), (20, 4), (20, 7), (3, 64), (1, 1)])
def test_independent_jobs_of_one_length_come_in_rounds(num: int, workers: int) -> None:
    jobs = [Job(f"{index}", 3.0) for index in range(num)]
    assert list_schedule(jobs, workers).seconds == 3.0 * ceil(num / workers)


def test_jobs_between_a_first_and_a_last_share_the_workers() -> None:
    middle = [Job(f"expert {index}", 2.0, ["encode"]) for index in range(20)]
    jobs = [Job("encode", 5.0), *middle, Job("distill", 1.0, [job.name for job in middle])]
    assert [list_schedule(jobs, workers).seconds for workers in (1, 8, 64)] == [46.0, 5 + 2 * 3 + 1, 8.0]
    assert [job.name for job in critical_path(jobs)] == ["encode", "expert 0", "distill"]


def test_the_longest_path_goes_first_and_not_the_first_or_the_longest_job() -> None:
    jobs = [Job("long", 4.0), Job("short", 1.0), Job("chain", 3.0), Job("end", 3.0, ["chain"])]
    found = list_schedule(jobs, 2)
    assert list(found.starts) == ["chain", "long", "end", "short"] and found.seconds == 6.0


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_small_graphs_take_less_than_twice_the_shortest_schedule(seed: int, workers: int) -> None:
    jobs = graph(seed, 6)
    found, best = list_schedule(jobs, workers), shortest(jobs, workers)
    check(jobs, found)
    assert best <= found.seconds <= (2 - 1 / workers) * best


@pytest.mark.parametrize("workers", [1, 2, 5, 16])
@pytest.mark.parametrize("seed", range(5))
def test_large_graphs_keep_their_bounds(seed: int, workers: int) -> None:
    jobs = graph(seed, 120, density=0.02)
    found, total = list_schedule(jobs, workers), sum(job.seconds for job in jobs)
    longest = sum(job.seconds for job in critical_path(jobs))
    check(jobs, found)
    assert max(total / workers, longest) <= found.seconds <= total / workers + (1 - 1 / workers) * longest
    assert longest == max(longest_paths(jobs).values())
    if workers == 1:
        assert found.seconds == total


def test_the_critical_path_is_a_chain_of_the_longest_sum() -> None:
    jobs = graph(3, 9)
    path = critical_path(jobs)
    assert all(before.name in after.needs for before, after in itertools.pairwise(path))
    chains = (chain for num in range(1, 10) for chain in itertools.combinations(jobs, num)
              if all(before.name in after.needs for before, after in itertools.pairwise(chain)))
    assert sum(job.seconds for job in path) == max(sum(job.seconds for job in chain) for chain in chains)


def test_no_worker_is_an_error() -> None:
    with pytest.raises(ValueError, match="--workers: found 0, expected 1 or more"):
        list_schedule([Job("a", 1.0)], 0)


# The jobs of a plan.


def priced(name: str, seconds: float, *needs: str, state: State = State.RUNS) -> Priced:
    return Priced(PlannedStage(name, name, state, needs), Estimate(seconds, "published"), None)


ROWS = [priced("encode", 60.0), priced("experts", 200.0, "encode"), priced("distill@lors-100", 30.0, "experts")]


def whole(module: str) -> int:
    """No stage has parts."""
    return 0


def test_every_expert_is_a_job_and_what_needs_the_stage_waits_for_all() -> None:
    jobs = jobs_of(ROWS, {"encode": 0, "experts": 20, "distill": 0}.__getitem__)
    assert [job.seconds for job in jobs] == [60.0, *[10.0] * 20, 0.0, 30.0]
    assert all(job.needs == ["encode"] for job in jobs[1:21]) and len(jobs[21].needs) == 20
    assert [list_schedule(jobs, workers).seconds for workers in (1, 8, 64)] == [290.0, 120.0, 100.0]
    assert [job.name for job in jobs[:3]] == ["encode", "experts.0", "experts.1"]


def test_profiles_of_a_suite_do_not_wait_for_one_another() -> None:
    jobs = [*jobs_of(ROWS, whole, "coco"), *jobs_of(ROWS, whole, "cc3m")]
    assert [list_schedule(jobs, workers).seconds for workers in (1, 2, 3)] == [580.0, 290.0, 290.0]
    assert jobs[4] == Job("cc3m: experts", 200.0, ["cc3m: encode"])


def test_what_is_done_takes_no_time() -> None:
    done = [priced("encode", 60.0, state=State.DONE), priced("experts", 60.0, "encode", state=State.CACHED)]
    assert schedule_text(jobs_of(done, whole), [1, 8], duration) == ""


def test_the_text_has_a_line_per_number_of_workers_and_the_longest_jobs_of_the_path() -> None:
    jobs = [Job("encode", 7200.0), *(Job(f"{index}", 3600.0, ["encode"]) for index in range(8)),
            Job("sum", 0.0, [f"{index}" for index in range(8)]), *(
            Job(f"step {index}", 10.0 * index, [f"step {index - 1}"] if index else ["sum"]) for index in range(8))]
    lines = schedule_text(jobs, [1, 8], duration).splitlines()
    assert [line.split() for line in lines[1:3]] == [["1", "10.1", "h", "1.0", "100", "%"],
                                                     ["8", "3.1", "h", "3.3", "41", "%"]]
    assert lines[3].startswith("Critical path, 3.1 h, which no number of workers shortens: encode 2.0 h > 0 60 min > ")
    assert "step 7" in lines[3] and "step 1 " not in lines[3] and "sum" not in lines[3]


def test_a_plan_ends_with_the_schedule_for_so_many_workers_or_for_several(
        capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(plan, "plan", lambda profile, root, targets: ROWS)

    def shown(workers: int | None) -> list[list[str]]:
        assert plan.main([], "quickstart", workers=workers) == 0
        lines = capsys.readouterr().out.splitlines()
        return [line.split()[:3] for line in lines[lines.index("") :] if line[:1].isdigit()]

    assert shown(None) == [["1", "5", "min"], ["8", "2", "min"], ["64", "2", "min"]]
    assert shown(3) == [["3", "3", "min"]]


def test_workers_are_as_many_as_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("max_jobs: 12\nvisible_gpus: [2, 5, 7]\n")
    assert (workers_on(tmp_path, On.SLURM), workers_on(tmp_path, On.GPUS)) == (12, 3)
    with pytest.raises(ValueError, match=r"cluster\.yaml: no such file"):
        workers_on(tmp_path / "elsewhere", On.SLURM)


@pytest.mark.parametrize(("change", "parts"), [([], 20), (["experts.import_from.path=buffers"], 0)])
def test_experts_of_a_profile_are_apart_unless_they_are_imported(change: list[str], parts: int, tmp_path: Path) -> None:
    kind, content = compose(ROOT, "flickr30k", ["+experts.import_from.path=buffers"] if change else [])
    (tmp_path / "params.yaml").write_text(yaml_text(content))
    profile = Profile("flickr30k", kind, tmp_path)
    assert (profile.parts("experts"), profile.parts("encode")) == (parts, 0)
