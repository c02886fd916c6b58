"""`repro run --on slurm`: submit what is ready, record what has finished, in one process that computes nothing itself.

It holds the clone's lock, reads the pipelines once, and goes round: outcomes of jobs, stages that DVC's run cache has,
stages whose inputs are recorded. A stage whose work has parts (experts) is an array of jobs first, then a job that
assembles. Ctrl-C, or `kill -9`, leaves the jobs running: the same command finds them by their files (`jobs`) and goes
on.
"""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from repblend.records.base import Run
from repblend.runtime.provenance import commit_of, keep_run, read_runs
from repblend.store import repository_of
from repro.cluster.disk import no_room_in
from repro.cluster.engines import JobEngine, Queued, Seen, here, open_engine
from repro.cluster.jobs import (
    CANCELLED,
    ENDED,
    JOBS,
    OUTPUT,
    RAN,
    SUBMITTED,
    Hardware,
    Job,
    State,
    Submission,
    job_folder,
    job_name,
    read_job,
    stamp,
)
from repro.cluster.node import DOCKER, HEADING, Task, other_kind
from repro.cluster.recording import Recorder, open_pipeline
from repro.cluster.settings import Cluster, On, read_cluster
from repro.cluster.snapshot import Snapshot, forget_snapshots, take_snapshot
from repro.profiles import Profile
from repro.workspace import inputs_of

LAST_LINES = 12
"""Of the log of a job that failed."""
SHORTEST_ROUND_S, LONGEST_ROUND_S = 0.2, 2.0
ROUNDS_OF_A_QUESTION = 5
"""Rounds, looking at jobs' files alone, between two questions to the queue."""
SECONDS_LOCALLY = 1.0
"""Between two looks at processes of this machine."""
PATIENCE_S = 3600.0
"""With a queue that does not answer."""
HOPELESS = ("OUT_OF_MEMORY", "CANCELLED", "DEADLINE")
"""Ends that the queue knows of and that would come again, or were asked for."""


@dataclass(frozen=True)
class Way:
    """How a run past one machine is to be done."""

    on: On
    is_mixed: bool = False
    """Take results of several kinds of hardware, each of which then says its own."""
    in_docker: bool = False
    """Run stages in containers of the nodes' Docker engine."""


def run_on(way: Way, profiles: Sequence[Profile], targets: Sequence[str]) -> bool:
    """Bring profiles up to date by jobs, side by side; return whether all of it succeeded. The caller holds the clone's
    lock.

    Raises:
        ValueError: the engine is not there or does not answer, or a pipeline cannot be read.
        KeyboardInterrupt: jobs go on.
    """
    root = repository_of(profiles[0].workspace)
    cluster = read_cluster(root, way.on)
    engine = open_engine(way.on, cluster)
    with contextlib.ExitStack() as pipelines:
        courses = [Course(profile, pipelines.enter_context(open_pipeline(profile.workspace, targets)), engine, cluster,
                          way) for profile in profiles]
        for course in courses:
            course.begin()
        rounds(courses, engine, cluster.poll_seconds)
        return not any([course.end() for course in courses])  # each says what failed


def rounds(courses: Sequence["Course"], engine: JobEngine, poll_seconds: float) -> None:
    """Go round until nothing is waited for."""
    pause = min(LONGEST_ROUND_S, max(SHORTEST_ROUND_S, poll_seconds / ROUNDS_OF_A_QUESTION))
    asked, answered = 0.0, time.monotonic()
    while True:
        seen: Mapping[str, Seen] = {}
        if time.monotonic() - asked >= (poll_seconds if engine.in_advance else SECONDS_LOCALLY):
            try:
                seen = engine.states([job.number for course in courses for job in course.open.values()])
                answered = time.monotonic()
            except ValueError as error:  # a busy cluster may not answer for a while
                if time.monotonic() - answered > PATIENCE_S:
                    raise
                print(f"{error}. It is asked again until {PATIENCE_S / 60:.0f} minutes are over", flush=True)
            asked = time.monotonic()
        progressed = [course.look(seen) for course in courses]
        free = engine.slots - sum(len(course.open) for course in courses)
        for course in courses:
            free -= course.submit(free)
        if not any(course.open or course.ready for course in courses):
            return
        if not any(progressed):
            time.sleep(pause)


@dataclass
class OpenJob:
    """A job that is waited for."""

    task: Task
    key: str
    number: str
    """The engine's."""
    has_begun: bool = False
    times_gone: int = 0
    """How many answers in a row have said that it has ended, while its own file does not."""


@dataclass
class Course:
    """One workspace on its way."""

    profile: Profile
    recorder: Recorder
    engine: JobEngine
    cluster: Cluster
    way: Way
    open: dict[str, OpenJob] = field(default_factory=dict)
    """Name -> job."""
    ready: deque[tuple[str, int | None]] = field(default_factory=deque)
    """Stages, or parts of them, that can be submitted."""
    waiting: list[str] = field(default_factory=list)
    """Stages whose inputs are not all recorded, in the order of the pipeline."""
    keys: dict[str, str] = field(default_factory=dict)
    """Stage that has to be computed -> what identifies its work."""
    missing_parts: dict[str, set[int]] = field(default_factory=dict)
    """Stage -> its parts that are not done."""
    part_seconds: dict[str, float] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Stage -> why."""
    kind: Hardware | None = None
    """What the results that stay were computed on."""
    told: str | None = None
    """Edits that were told."""

    @property
    def workspace(self) -> Path:
        return self.profile.workspace

    # A run's beginning and end.

    def begin(self) -> None:
        """Take the snapshot, and record what needs no job."""
        root = repository_of(self.workspace)
        self.commit, self.dirty = commit_of(root)
        brought = self.profile.brought()
        self.inputs = {str(place): str(source) for place, source in inputs_of(root, brought.folders).items()}
        given = [root / path for path in brought.folders]
        self.snapshot: Snapshot = take_snapshot(root, self.workspace, [
            path for path in self.recorder.given() if not any(path.is_relative_to(folder) for folder in given)])
        self.on_gpu = self.profile.params().compute.device == "cuda"
        self.waiting = list(self.recorder.names)
        self.runs = {run.stage: run for run in read_runs(self.workspace / "runs.jsonl")}
        self.advance()

    def end(self) -> bool:
        """Say what failed and what was edited; return whether something failed."""
        for stage, why in self.failed.items():
            print(f"{self.profile.name}: {stage} failed: {why}", file=sys.stderr)
        if self.waiting:
            print(f"{self.profile.name}: not run, since what they need failed: {', '.join(self.waiting)}",
                  file=sys.stderr)
        self.tell_edits()
        forget_snapshots(repository_of(self.workspace), self.workspace)
        return bool(self.failed)

    def tell_edits(self) -> None:
        """Say once what was edited since the snapshot was taken."""
        if (edited := self.snapshot.edited()) and edited != self.told:
            self.told = edited
            self.say(f"edited since this run began: {edited}. Its jobs are made of what was there then; run the same "
                     "command again afterwards")

    def say(self, words: str) -> None:
        print(f"{self.profile.name}: {words}", flush=True)

    # What can be recorded, and what has to be computed.

    def advance(self) -> bool:
        """Go on with every stage whose inputs are recorded; return whether one was."""
        progressed = False
        for stage in [*self.waiting]:
            if all(before in self.done for before in self.recorder.needs[stage]):
                self.waiting.remove(stage)
                progressed |= self.consider(stage)
        return progressed

    def consider(self, stage: str) -> bool:
        """Record a stage that needs no job, else prepare its jobs; return whether it was recorded."""
        if self.recorder.is_up_to_date(stage):
            self.settle(stage, None)
        elif (work := self.recorder.record(stage)).is_recorded:
            self.say(f"{stage}: from the cache")
            self.settle(stage, self.keep_earlier(stage, work.key))
        else:
            self.prepare(stage, work.key)
        return stage in self.done

    def keep_earlier(self, stage: str, key: str) -> Hardware | None:
        """Put the run of a job that ended while no head was there into `runs.jsonl`; return what it computed on."""
        job = self.done_job(stage, None, key)
        if job is None or job.ran is None or job.ran.run is None:
            return None
        self.count_parts(stage, key)
        self.keep(stage, job.ran.run)
        return job.ran.hardware

    def prepare(self, stage: str, key: str) -> None:
        """Line up what a stage still needs. Jobs of an earlier run that go on are waited for at once: they take their
        places whether or not their turn has come.
        """
        self.keys[stage] = key
        self.missing_parts[stage] = self.count_parts(stage, key)
        tasks: list[int | None] = [*sorted(self.missing_parts[stage])] or [None]
        self.ready.extend((stage, part) for part in tasks if not self.adopt(self.task(stage, part), key))

    def count_parts(self, stage: str, key: str) -> set[int]:
        """Add up what earlier jobs took for parts of a stage; return the parts that are missing."""
        jobs = {part: self.done_job(stage, part, key) for part in range(self.profile.parts(stage))}
        self.part_seconds[stage] = sum(job.seconds or 0.0 for job in jobs.values() if job)
        return {part for part, job in jobs.items() if job is None}

    def settle(self, stage: str, hardware: Hardware | None) -> None:
        """Count a stage as recorded; the first result says on which kind of hardware all others have to be computed."""
        self.done.add(stage)
        run = self.runs.get(self.run_name(stage))
        if hardware is None and run is not None:
            hardware = Hardware.of(run)
        self.kind = self.kind or hardware

    def run_name(self, stage: str) -> str:
        """Return a stage as `runs.jsonl` names it: `distill@repblend-100` of `distill-variant@...`."""
        return "@".join(self.recorder.command(stage).split()[3:])  # of: python -m PACKAGE STAGE [CELL]

    def done_job(self, stage: str, part: int | None, key: str) -> Job | None:
        """Return the job that has done exactly this work, if one has."""
        job = read_job(job_folder(self.workspace, job_name(stage, part)))
        return job if job is not None and job.state is State.DONE and job.submission.key == key else None

    # Submitting.

    def submit(self, free: int) -> int:
        """Submit what is ready, at most so many jobs; return how many."""
        count = 0
        while self.ready and count < free:
            stage, part = self.ready.popleft()
            group = [(stage, part)]
            while part is not None and self.ready and self.ready[0][0] == stage and count + len(group) < free:
                group.append(self.ready.popleft())
            count += self.submit_group([self.task(*each) for each in group])
        return count

    def task(self, stage: str, part: int | None) -> Task:
        root = repository_of(self.workspace)
        return Task(root=str(root), workspace=str(self.workspace.relative_to(root)), stage=stage, part=part, attempt=1,
                    snapshot=str(self.snapshot.folder), expects=None if self.way.is_mixed else self.kind,
                    on=self.way.on, on_gpu=self.on_gpu, is_mixed=self.way.is_mixed,
                    image=DOCKER if self.way.in_docker else self.cluster.image, inputs=self.inputs)

    def submit_group(self, tasks: Sequence[Task]) -> int:
        """Submit tasks of one stage, but for those that an earlier run submitted and that still go on; return how many
        jobs are waited for.
        """
        stage, key = tasks[0].stage, self.keys[tasks[0].stage]
        fresh = [task for task in tasks if not self.adopt(task, key)]
        for task in fresh:
            for name in (RAN, CANCELLED):  # of an earlier run, which counted from one as well
                (task.folder / name).unlink(missing_ok=True)
            self.note(task, key, None)  # the intention: who is killed now finds the job by its name
        numbers = self.engine.submit(fresh) if fresh else []
        for task, number in zip(fresh, numbers, strict=True):
            self.note(task, key, number)
            self.open[task.name] = OpenJob(task, key, number)
        if fresh:
            what = fresh[0].name if len(fresh) == 1 else f"{stage}, {len(fresh)} experts"
            self.say(f"{what}: job {numbers[0].partition('_')[0] if len(fresh) > 1 else numbers[0]}")
        return len(tasks)

    def note(self, task: Task, key: str, number: str | None) -> None:
        Submission(stage=task.stage, part=task.part, engine=str(task.on), id=number, attempt=task.attempt,
                   submitted=stamp(), key=key, log=str(JOBS / task.name / OUTPUT)).write(task.folder / SUBMITTED)

    def adopt(self, task: Task, key: str) -> bool:
        """Wait for the job of an earlier run that does exactly this; one that does something else is ended. Return
        whether there is one to wait for.
        """
        earlier = read_job(task.folder)
        number = self.number_of(earlier, task) if earlier else None
        if earlier is None or number is None or earlier.state in (State.CANCELLED, State.FAILED, State.REFUSED):
            return False  # the last two may still be ending
        if earlier.submission.engine != self.way.on:
            if earlier.state in ENDED:
                return False
            raise ValueError(f"{task.folder}: job {number} of an earlier run on {earlier.submission.engine} may still "
                             "go on. End it: `repro jobs --cancel`")
        if self.way.on is On.GPUS and earlier.ran and earlier.state not in ENDED and earlier.ran.node != here():
            raise ValueError(f"{task.folder}: job {number} of an earlier run may still go on, on {earlier.ran.node}. "
                             "Start this there; or, if it is gone, remove that folder and run the same command again")
        if self.engine.states([number])[number].state is Queued.ENDED:
            return False
        if earlier.submission.key != key:
            self.say(f"{task.name}: ended job {number} of an earlier run, which had other parameters or inputs")
            self.engine.cancel([number])
            return False
        self.say(f"{task.name}: job {number} of an earlier run goes on")
        task = replace(task, attempt=earlier.submission.attempt)
        self.note(task, key, number)
        self.open[task.name] = OpenJob(task, key, number)
        self.engine.adopt(number, earlier.ran.gpus if earlier.ran else None)
        return True

    def number_of(self, earlier: Job, task: Task) -> str | None:
        """Return the engine's number of an earlier job, also if the head was killed before it wrote that down."""
        return earlier.submission.id or (earlier.ran and earlier.ran.id) or self.engine.find(task)

    # What has become of jobs.

    def look(self, seen: Mapping[str, Seen]) -> bool:
        """Look at every open job; return whether one has ended.

        Args:
            seen: what the engine says, where it was asked.
        """
        ended = False
        for name, waited in [*self.open.items()]:
            job = read_job(waited.task.folder)
            if job is None:
                raise ValueError(f"{waited.task.folder}: removed while its job runs. End the job ({waited.number}) and "
                                 "run the same command again")
            if job.ran and not waited.has_begun:
                waited.has_begun = True
                self.say(f"{name}: runs on {job.ran.node}" + (f", GPU {job.ran.gpus}" if job.ran.gpus else ""))
            if job.state in ENDED and job.state is not State.KILLED:
                self.engine.release(self.open.pop(name).number)
                self.finish(waited, job)
                ended = True
            elif (found := seen.get(waited.number)) is not None:
                waited.times_gone = waited.times_gone + 1 if found.state is Queued.ENDED else 0
                if waited.times_gone > (job.state is not State.KILLED):  # a file may come late to a shared disk
                    self.engine.release(self.open.pop(name).number)
                    self.lose(waited, job, found.word)
                    ended = True
        if ended:
            self.advance()
            self.tell_edits()
        return ended

    def finish(self, waited: OpenJob, job: Job) -> None:
        """Record what a job did, or say why it did not."""
        stage, part, ran = waited.task.stage, waited.task.part, job.ran
        if job.state is State.CANCELLED:
            self.fail(stage, "cancelled by `repro jobs --cancel`", job)
            return
        assert ran is not None and job.seconds is not None
        if ran.state is not State.DONE:
            self.fail(stage, ran.reason or ran.state, job)
        elif part is not None:
            self.missing_parts[stage].discard(part)
            self.part_seconds[stage] = self.part_seconds.get(stage, 0.0) + job.seconds
            self.say(f"{job.name}: done in {job.seconds:.0f} s")
            if not self.missing_parts[stage] and stage not in self.failed:
                self.ready.append((stage, None))
        elif not self.way.is_mixed and self.kind and ran.hardware != self.kind:
            self.fail(stage, other_kind(ran.hardware, self.kind), job)
        elif not self.recorder.record(stage).is_recorded:
            self.fail(stage, "its job is done, but the shared cache has no result of it. Is the cache on a disk that "
                      "all nodes see, and were its inputs left alone?", job)
        else:
            if ran.run:
                self.keep(stage, ran.run)
            self.settle(stage, ran.hardware)
            self.say(f"{stage}: done in {job.seconds:.0f} s")

    def keep(self, stage: str, run: Run) -> None:
        """Put a stage's run into `runs.jsonl`, with the commit that this run began with and the time of its parts."""
        kept = run.model_copy(update={"commit": self.commit, "dirty": self.dirty, "wall_seconds": round(
            run.wall_seconds + self.part_seconds.get(stage, 0.0), 2)})
        keep_run(self.profile.kind.pipeline.workspace(self.workspace), kept)

    def lose(self, waited: OpenJob, job: Job, word: str) -> None:
        """Submit again what was stopped from outside, unless that would come again."""
        why = f"{job.ran.reason}, {word}" if job.ran and job.ran.reason else word
        if any(word.startswith(each) for each in HOPELESS):
            self.fail(waited.task.stage, f"its job was ended ({why})" + (
                ". Raise memory_gib in cluster.yaml" if word == "OUT_OF_MEMORY" else ""), job)
        elif full := no_room_in(waited.task.folder):  # it could not even write down how it ended
            self.fail(waited.task.stage, full, job)
        elif waited.task.attempt > self.cluster.retries:
            self.fail(waited.task.stage, f"its job was stopped {waited.task.attempt} times ({why})", job)
        else:
            self.say(f"{job.name}: was stopped ({why}); submitted again")
            self.submit_group([replace(waited.task, attempt=waited.task.attempt + 1)])

    def fail(self, stage: str, why: str, job: Job) -> None:
        """Remember that a stage failed, and show the end of its job's log. Its other parts are not begun."""
        self.failed[stage] = why
        self.ready = deque(each for each in self.ready if each[0] != stage)
        lines = last_attempt(job) or queue_lines(job)
        print("\n".join([f"{self.profile.name}: {job.name} failed: {why}", f"The end of {job.output}:",
                         *(f"  {line}" for line in lines[-LAST_LINES:])]), file=sys.stderr, flush=True)


def last_attempt(job: Job) -> list[str]:
    """Return what the last attempt of a job printed, without submitit's own lines."""
    text = job.output.read_text("utf-8", "replace") if job.output.is_file() else ""
    lines = text.rpartition(HEADING.format(name=job.name))[2].splitlines()[1:]
    return [line for line in lines if not line.startswith("submitit ") and line.strip()]


def queue_lines(job: Job) -> list[str]:
    """Return what was printed outside of a job's own output: before it began, for example by a line of `setup`."""
    found = sorted(job.folder.parent.glob(f".queue/{(job.submission.id or '?').partition('-')[0]}_0_log.*"))
    return [line for path in found for line in path.read_text("utf-8", "replace").splitlines()]
