"""Jobs on a real SLURM and in processes of this machine, with stages that are shell scripts: failures, kills, edits."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from repblend.params.reading import read_yaml
from repblend.records.base import Machine, Run
from repblend.runtime.provenance import processor, read_runs
from repro.cluster.head import Way, run_on
from repro.cluster.jobs import State, read_jobs
from repro.cluster.settings import On
from repro.pipeline import KINDS, MULTIMODAL, yaml_text
from repro.profiles import Profile
from repro.workspace import only_run
from tests.cluster.slurm import Cluster, slurm
from tests.cluster.toy import PATIENCE_S, Toy, wait_until

pytestmark = pytest.mark.faults

SLOW = ("python slow.py", ["a"])
"""Takes steps until a file `go` is beside its checkpoint, and goes on after the last one that is in there."""
SLOW_PY = """\
import os, time
from pathlib import Path
kept = Path(os.environ["REPBLEND_SHARED_WORKSPACE"], "checkpoints"); kept.mkdir(parents=True, exist_ok=True)
step = len((kept / "slow").read_text().splitlines()) if (kept / "slow").exists() else 0
while not (kept / "go").exists():
    with (kept / "slow").open("a") as file:
        file.write(f"{step}\\n")
    time.sleep(0.1)
    step += 1
Path("records").mkdir(exist_ok=True)
Path("records/slow.txt").write_text("done\\n")
"""
FIRST = ("mkdir -p records; cp input.txt records/a.txt", [])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with slurm(tmp_path_factory.mktemp("slurm") / "one") as running:
        yield running


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """A workspace for the processes of this machine."""
    return Toy(tmp_path / "toy")


def steps_of(toy: Toy) -> int:
    path = toy.folder / "checkpoints/slow"
    return len(path.read_text().splitlines()) if path.exists() else 0


def reach(toy: Toy, steps: int) -> None:
    """Wait until stage `slow` has taken so many steps."""
    wait_until(lambda: steps_of(toy) >= steps, toy)


def nothing_was_repeated(toy: Toy) -> bool:
    steps = [int(line) for line in toy.read("checkpoints/slow").splitlines()]
    return steps == [*range(len(steps))] and toy.read("records/slow.txt") == "done\n"


def test_what_fails_stops_what_needs_it_and_an_edit_changes_no_job(cluster: Cluster, tmp_path: Path) -> None:
    toy = Toy(tmp_path / "toy", cluster.environment)
    toy.define(a=FIRST, bad=("echo no such thing >&2; exit 4", ["a"]),
               after=("cp records/bad.txt records/after.txt", ["bad"]), experts=("python experts.py", ["a"]),
               c=("cat records/experts.txt > records/c.txt", ["experts"]))
    shutil.copytree(toy.folder, tmp_path / "alone")
    alone = Toy.__new__(Toy)
    alone.folder, alone.variables = tmp_path / "alone", {}
    run = toy.start("--on", "slurm")
    wait_until(lambda: "experts.0" in toy.jobs() or run.poll() is not None, toy)
    (toy.folder / "src/repblend/store.py").open("a").write("raise SystemExit('edited')\n")
    (toy.folder / "experts.py").write_text("raise SystemExit('edited')\n")
    assert run.wait(timeout=PATIENCE_S) == 1

    output = toy.output()
    assert "bad failed: exit code 1" in output and "  no such thing\n" in output
    assert "not run, since what they need failed: after" in output
    assert "edited since this run began: experts.py, src/repblend/store.py." in output
    jobs = toy.jobs()
    assert jobs["bad"].state is State.FAILED and {job.submission.attempt for job in jobs.values()} == {1}
    assert "after" not in jobs and {job.ran.gpus for job in jobs.values()} <= {"0", "1"}
    numbers = [jobs[f"experts.{part}"].submission.id for part in range(3)]
    assert [number.partition("_")[2] for number in numbers] == ["0", "1", "2"]
    assert len({number.partition("_")[0] for number in numbers}) == 1
    assert sorted(line.split()[0] for line in toy.read("checkpoints/experts/log").splitlines()) == ["0", "1", "2"]

    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "c"], cwd=alone.folder, check=True)
    assert toy.hashes() == alone.hashes()


def test_kills_of_head_and_jobs_a_requeue_and_a_time_limit_repeat_nothing(cluster: Cluster, tmp_path: Path) -> None:
    toy = Toy(tmp_path / "toy", cluster.environment)
    (toy.folder / "slow.py").write_text(SLOW_PY)
    toy.define(a=FIRST, slow=SLOW)
    toy.also_depends("slow", "slow.py")
    head = toy.start("--on", "slurm")
    reach(toy, 2)
    head.kill()
    head.wait()
    number = toy.jobs()["slow"].submission.id
    os.kill(toy.jobs()["slow"].ran.pid, signal.SIGKILL)  # the job itself, and nobody is there to see it
    wait_until(lambda: "RUNNING" not in cluster.ask("squeue", "--noheader", f"--jobs={number}", "--states=all",
                                                    "--format=%T"), toy)
    head = toy.start("--on", "slurm")
    wait_until(lambda: (job := toy.jobs()["slow"]).submission.id not in (number, None) and job.ran, toy)
    job = toy.jobs()["slow"]
    reach(toy, steps_of(toy) + 2)
    for end in ("scontrol requeue {}", "scancel --signal=USR2 {}"):  # by others, and as a time limit ends it
        before, began = steps_of(toy), toy.jobs()["slow"].ran.started
        cluster.ask(*end.format(job.submission.id).split())
        wait_until(lambda: start_now(cluster, job.submission.id), toy)
        wait_until(lambda began=began: began_again(toy, job.submission.id, began), toy)
        reach(toy, before + 2)
    head.kill()
    head.wait()
    head = toy.start("--on", "slurm")
    wait_until(lambda: f"slow: job {job.submission.id} of an earlier run goes on" in toy.output(), toy)
    (toy.folder / "checkpoints/go").touch()
    assert head.wait(timeout=PATIENCE_S) == 0, toy.output()
    assert nothing_was_repeated(toy) and "slow:" in toy.read("dvc.lock")


def began_again(toy: Toy, number: str, before: str) -> bool:
    """Whether the same job began anew."""
    job = toy.jobs()["slow"]
    assert job.submission.id == number and job.ran is not None, toy.output()
    return job.ran.started != before


def start_now(cluster: Cluster, number: str) -> bool:
    """Let SLURM hold back a job that was queued again for no longer than it must; return whether it was queued.

    A node forgets the end of a job by whole seconds: one that begins anew within the same second is refused as revoked.
    """
    state = cluster.ask("squeue", "--noheader", f"--jobs={number}", "--format=%T %r").strip()
    if state.startswith("PENDING"):
        cluster.ask("scontrol", "update", f"jobid={number}", "StartTime=now+2")
        return True
    return False


def test_ctrl_c_leaves_jobs_of_this_machine_running_and_kills_are_tried_again(toy: Toy) -> None:
    (toy.folder / "slow.py").write_text(SLOW_PY)
    toy.define(a=FIRST, slow=SLOW)
    toy.also_depends("slow", "slow.py")
    head = toy.start("--on", "gpus")
    reach(toy, 2)
    os.killpg(head.pid, signal.SIGINT)  # as a terminal does: to the head and all that it has started
    assert head.wait(timeout=PATIENCE_S) == 128 + signal.SIGINT and "Jobs that were submitted go on" in toy.output()
    job = toy.jobs()["slow"]
    reach(toy, steps_of(toy) + 2)
    head = toy.start("--on", "gpus")
    wait_until(lambda: f"slow: job {job.submission.id} of an earlier run goes on" in toy.output(), toy)
    stage = next(process for process in psutil.Process(job.ran.pid).children(recursive=True)
                 if "slow.py" in process.cmdline())
    stage.kill()
    wait_until(lambda: "slow: was stopped (exit code 75, gone); submitted again" in toy.output(), toy)
    reach(toy, steps_of(toy) + 2)
    (toy.folder / "checkpoints/go").touch()
    assert head.wait(timeout=PATIENCE_S) == 0, toy.output()
    assert toy.jobs()["slow"].submission.attempt == 2 and nothing_was_repeated(toy)


def test_a_job_of_an_earlier_run_keeps_its_gpu_whichever_stage_is_next(toy: Toy) -> None:
    toy.settings(visible_gpus=[0])
    (toy.folder / "slow.py").write_text(SLOW_PY)
    toy.define(a=FIRST, other=("cp records/a.txt records/other.txt", ["a"]), slow=SLOW)
    toy.also_depends("slow", "slow.py")
    head = toy.start("--on", "gpus", "slow")
    reach(toy, 2)
    os.killpg(head.pid, signal.SIGINT)
    head.wait(timeout=PATIENCE_S)
    head = toy.start("--on", "gpus")
    wait_until(lambda: "of an earlier run goes on" in toy.output(), toy)
    reach(toy, steps_of(toy) + 10)
    assert "other" not in toy.jobs()
    (toy.folder / "checkpoints/go").touch()
    assert head.wait(timeout=PATIENCE_S) == 0, toy.output()
    jobs = toy.jobs()
    assert jobs["slow"].ran.ended <= jobs["other"].ran.started and nothing_was_repeated(toy)


def test_a_job_that_ended_while_no_head_was_there_leaves_its_run(toy: Toy) -> None:
    run = a_run("slow")
    (toy.folder / "slow.py").write_text(
        SLOW_PY + f"with Path('runs.jsonl').open('a') as file:\n    file.write({run.model_dump_json()!r} + '\\n')\n")
    toy.define(a=FIRST, slow=SLOW)
    toy.also_depends("slow", "slow.py")
    older = run.model_copy(update={"started": "2025-01-01T00:00:00+00:00"})
    (toy.folder / "runs.jsonl").write_text(older.model_dump_json() + "\n")
    head = toy.start("--on", "gpus", "--mixed")
    reach(toy, 2)
    os.killpg(head.pid, signal.SIGINT)
    head.wait(timeout=PATIENCE_S)
    (toy.folder / "checkpoints/go").touch()
    wait_until(lambda: toy.jobs()["slow"].state is State.DONE, toy)
    assert "slow: from the cache" in toy.run("--on", "gpus", "--mixed")
    assert [each.started for each in read_runs(toy.folder / "runs.jsonl")] == [run.started]


def a_run(stage: str) -> Run:
    """Return a run of a stage on a processor that there is not."""
    return Run(stage=stage, commit=None, dirty=None, image_digest=None, started="2026-01-01T00:00:00+00:00",
               wall_seconds=1.0, peak_memory_mib=1.0, python="3.11",
               machine=Machine(processor="Abacus 9000", cores=1, system="none"))


def test_another_kind_of_hardware_is_refused_unless_mixed(toy: Toy) -> None:
    (toy.folder / "experts.py").write_text("from pathlib import Path\nPath('records').mkdir()\n"
                                           "Path('records/a.txt').write_text('1')\n")
    toy.define(a=("python -m experts a", []), b=("printenv REPBLEND_MIXED GOMP_SPINCOUNT > records/b.txt", ["a"]))
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "a"], cwd=toy.folder, check=True)
    (toy.folder / "runs.jsonl").write_text(a_run("a").model_dump_json() + "\n")
    output = toy.run("--on", "gpus", expect=1)
    assert f"computed on {processor()}, while the other results of the workspace are from Abacus 9000" in output
    assert toy.jobs()["b"].state is State.REFUSED and not (toy.folder / "records/b.txt").exists()
    toy.run("--on", "gpus", "--mixed")
    assert toy.read("records/b.txt") == "1\n0\n"  # threads that spin would slow the job beside it


def test_profiles_of_a_suite_run_side_by_side_in_workspaces_of_their_own(toy: Toy, capsys: pytest.CaptureFixture[str]
                                                                         ) -> None:
    profiles = []
    for name in ("one", "two"):
        workspace = toy.folder / "profiles" / name
        workspace.mkdir(parents=True)
        shutil.copyfile(toy.folder / "params.yaml", workspace / "params.yaml")
        (workspace / "dvc.yaml").write_text(yaml_text({"stages": {
            "a": {"cmd": f"mkdir -p records; sleep 3; echo {name} > records/a.txt", "deps": ["../../input.txt"],
                  "outs": ["records/a.txt"]},
            "b": {"cmd": "cp records/a.txt records/b.txt", "deps": ["records/a.txt"], "outs": ["records/b.txt"]}}}))
        profiles.append(Profile(name, KINDS[MULTIMODAL], workspace))
    with only_run(*(profile.workspace for profile in profiles)):
        assert run_on(Way(On.GPUS), profiles, []), capsys.readouterr()
    for profile in profiles:
        assert (profile.workspace / "records/b.txt").read_text() == f"{profile.name}\n"
        assert list(read_yaml(profile.workspace / "dvc.lock")["stages"]) == ["a", "b"]
    one, two = ({job.name: job.ran for job in read_jobs(profile.workspace)} for profile in profiles)
    assert one["a"].started < two["a"].ended and two["a"].started < one["a"].ended
    assert {one["a"].gpus, two["a"].gpus} == {"0", "1"}
    left = [path.name for path in (toy.folder / ".dvc/tmp/jobs").rglob("*")]
    assert sorted(left) == ["one", "two"]  # empty folders: no checkout, and no snapshot
