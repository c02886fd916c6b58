"""What is written down of every job: typed files in `logs/jobs/NAME/` of the workspace, each with one writer.

`submitted.json` is the head's: what was asked for, and the number that the engine gave it. `ran.json` is the job's own:
where it runs, since when, how it ended. `cancelled.json` is of `repro jobs --cancel`: which attempt nobody wants any
more. `output.log` beside them is what it printed, attempt after attempt. NAME is the stage as DVC calls it, with the
expert's number if the job trains one alone: `distill@repblend-100`, `experts.3`. `read_jobs` reads all of a workspace;
nobody has to ask the engine for what has ended.
"""

import contextlib
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

import psutil
from pydantic import BeforeValidator

from repblend.records.base import Record, Run, Sha256

JOBS = Path("logs/jobs")
"""In a workspace."""
SUBMITTED, RAN, CANCELLED, OUTPUT = "submitted.json", "ran.json", "cancelled.json", "output.log"
REMOVE = "Remove the folder that it lies in and run the same command again"


class State(StrEnum):
    """What has become of a job, as its files say."""

    WAITING = "waiting"
    """Submitted, not begun."""
    RUNNING = "running"
    """Begun, and has not said that it ended: whether it still lives, the engine knows."""
    DONE = "done"
    FAILED = "failed"
    """By an error of the stage's own: never tried again."""
    KILLED = "killed"
    """Stopped from outside (a signal, a time limit, preemption): tried again."""
    REFUSED = "refused"
    """The node is of another kind than the workspace's results; nothing was computed."""
    CANCELLED = "cancelled"
    """By `repro jobs --cancel`: not tried again by the run that submitted it, but by the next one."""


ENDED = (State.DONE, State.FAILED, State.KILLED, State.REFUSED, State.CANCELLED)


class Hardware(Record):
    """What decides last bits: where a job ran."""

    processor: str
    gpu: str | None
    """None where stages compute on the processor."""

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return what a stage's last run was on."""
        return cls(processor=run.machine.processor, gpu=run.gpu.name if run.gpu else None)

    def __str__(self) -> str:
        return self.processor if self.gpu is None else f"{self.processor}, {self.gpu}"


class Submission(Record):
    """`submitted.json`: what the head asked for."""

    stage: str
    """As DVC calls it: `distill@repblend-100`."""
    part: int | None
    """Number of the expert that the job trains alone; null for a whole stage."""
    engine: str
    """`slurm` or `gpus`."""
    id: str | None
    """The engine's number of the job; null between the intention and the answer."""
    attempt: int
    """1, and one more after every submission again."""
    submitted: str
    key: Sha256
    """Identifies the work: command, inputs and parameters, as DVC's run cache has them."""
    log: str
    """What the job prints, from the workspace."""


class Ran(Record):
    """`ran.json`: what the job says of itself."""

    attempt: int
    id: str
    state: Annotated[State, BeforeValidator(lambda text: State(text))]  # no class: Python 3.13 hides what it takes
    node: str
    pid: int
    hardware: Hardware
    gpus: str | None
    """`CUDA_VISIBLE_DEVICES` of the job."""
    started: str
    ended: str | None = None
    reason: str | None = None
    """Why it failed, was killed or refused."""
    run: Run | None = None
    """The run record of the stage, once it is done; an expert's job has none."""


class Cancellation(Record):
    """`cancelled.json`: what `repro jobs --cancel` asked for, written before the engine is told."""

    attempt: int
    asked: str


@dataclass(frozen=True)
class Job:
    """A job of a workspace."""

    name: str
    submission: Submission
    ran: Ran | None
    """None until this attempt began."""
    folder: Path
    is_cancelled: bool = False
    """Whether this attempt was asked to end."""

    @property
    def state(self) -> State:
        """What was done before it was cancelled is done, and what had failed has failed."""
        found = State.WAITING if self.ran is None else self.ran.state
        return State.CANCELLED if self.is_cancelled and found not in (State.DONE, State.FAILED) else found

    @property
    def seconds(self) -> float | None:
        """How long the attempt has run, or ran."""
        if self.ran is None:
            return None
        end = datetime.datetime.fromisoformat(self.ran.ended) if self.ran.ended else now()
        return (end - datetime.datetime.fromisoformat(self.ran.started)).total_seconds()

    @property
    def output(self) -> Path:
        return self.folder / OUTPUT


def job_name(stage: str, part: int | None = None) -> str:
    """Return what a job is called, here and in the queue."""
    return stage if part is None else f"{stage}.{part}"


def job_folder(workspace: Path, name: str) -> Path:
    """Return where the files of a job lie."""
    return workspace / JOBS / name


def read_job(folder: Path) -> Job | None:
    """Return the job of a folder; None if nothing was submitted.

    Raises:
        ValueError: a file is not as expected.
    """
    if not (folder / SUBMITTED).is_file():
        return None
    submission = Submission.read(folder / SUBMITTED, REMOVE)
    ran = Ran.read(folder / RAN, REMOVE) if (folder / RAN).is_file() else None
    cancelled = Cancellation.read(folder / CANCELLED, REMOVE) if (folder / CANCELLED).is_file() else None
    return Job(folder.name, submission, ran if ran and ran.attempt == submission.attempt else None, folder,
               cancelled is not None and cancelled.attempt == submission.attempt)


def read_jobs(workspace: Path) -> Iterator[Job]:
    """Yield the jobs of a workspace by name; raises `ValueError` as `read_job`."""
    for path in sorted((workspace / JOBS).glob(f"*/{SUBMITTED}")):
        if job := read_job(path.parent):
            yield job


def now() -> datetime.datetime:
    """Return the time with its zone."""
    return datetime.datetime.now(datetime.UTC)


def stamp() -> str:
    """Return the time as records have it."""
    return now().isoformat(timespec="milliseconds")


# Processes of this machine, which an engine of one machine has in the place of numbers of jobs.

STARTED = 22 - 3
"""Place of a process's start in `/proc/PID/stat` (proc(5)), counted from behind its name."""


def process_id(pid: int) -> str:
    """Return what no other process of this machine is called: its number, and when it began, in the kernel's ticks
    since the machine did: the time of day may be set meanwhile.
    """
    try:
        after_its_name = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return f"{pid}-0"
    return f"{pid}-{after_its_name[STARTED]}"


def is_running(number: str) -> bool:
    """Whether a process that `process_id` named still runs."""
    pid = int(number.partition("-")[0])
    with contextlib.suppress(psutil.NoSuchProcess):
        return process_id(pid) == number and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
