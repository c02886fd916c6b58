"""Engines: what submits jobs, says what becomes of them, and ends them. Two, both driven by submitit: a SLURM cluster,
and the GPUs of this machine.

An engine knows jobs by its own numbers and by their names in the queue; what a job did, it does not know (`jobs` does).
submitit asks SLURM's accounting, which not every cluster has, every ten minutes: here the queue itself is asked, once
for all jobs. What is pickled by submitit is a `Task` of a few texts, read by the sources of the run's own snapshot.
"""

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil

from repblend.runtime.provenance import BESIDE_VARIABLE
from repro.cluster.jobs import JOBS, is_running, process_id
from repro.cluster.node import Task
from repro.cluster.settings import FILE, Cluster, On

QUEUE = JOBS / ".queue"
"""In a workspace: what submitit writes (scripts, pickles, and what was printed before or after the job itself)."""
TIME_LIMITS_MET = 20
"""How often a job queues itself again when its time is over."""
MINUTES_OF_A_YEAR = 365 * 24 * 60


class Queued(StrEnum):
    """What an engine says of a job."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"


class Seen(NamedTuple):
    """What an engine says of a job: a job that it does not know (any more) has ended."""

    state: Queued
    word: str = "gone"
    """In its own words: `PENDING`, `NODE_FAIL`."""
    node: str = ""


class JobEngine(Protocol):
    """A place that runs jobs."""

    name: On
    slots: int
    """Jobs that it is given at once, waiting or running."""
    in_advance: bool
    """Whether it takes more jobs than it can run now, and lets them wait."""

    def submit(self, tasks: Sequence[Task]) -> list[str]:
        """Submit tasks of one stage, several as an array; return a number for each.

        Raises:
            ValueError: the engine refuses; the message has its words.
        """

    def find(self, task: Task) -> str | None:
        """Return the number of a job that was submitted by a head that was killed before it wrote that down."""

    def states(self, ids: Iterable[str]) -> dict[str, Seen]:
        """Return what has become of jobs; raises `ValueError` if the engine does not answer."""

    def adopt(self, number: str, gpus: str | None) -> None:
        """Take over a job of an earlier head, which runs on these GPUs."""

    def release(self, number: str) -> None:
        """Give the place of a job that has said that it ended to the next."""

    def cancel(self, ids: Iterable[str]) -> None:
        """End jobs, waiting or running; nothing happens to those that have ended."""


def open_engine(on: On, cluster: Cluster) -> JobEngine:
    """Return the engine that `--on` names.

    Raises:
        ValueError: there is no SLURM, or no GPU, on this machine.
    """
    return Slurm(cluster) if on is On.SLURM else LocalGpus(cluster)


def queue_name(task: Task) -> str:
    """Return what a task's job is called in the queue: no two workspaces of a user share a name; experts of a stage do,
    being one array.
    """
    clone = hashlib.sha256(task.root.encode()).hexdigest()[:6]
    return f"repblend-{clone}/{Path(task.workspace).name or 'quickstart'}/{task.stage}" + (
        "/experts" if task.part is not None else "")


def python_of(task: Task) -> str:
    """Return, for a shell, this Python on the sources of the run's snapshot."""
    path = os.pathsep.join([f"{task.snapshot}/src", task.snapshot])
    return f"env PYTHONPATH={shlex.quote(path)} {shlex.quote(sys.executable)}"


def _executors() -> Any:
    try:
        import submitit  # slow to import, and only needed past one machine
    except ModuleNotFoundError as error:
        raise ValueError("submitit is not installed, which submits jobs. `make install`, or pip install --no-deps "
                         "-r requirements/tools.txt") from error
    return submitit


class Slurm:
    """A SLURM cluster, by `sbatch`, `squeue` and `scancel`."""

    name, in_advance = On.SLURM, True
    OPEN = frozenset({"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT",
                      "RESIZING"})
    WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD",
                         "PREEMPTED"})

    def __init__(self, cluster: Cluster) -> None:
        """Raises `ValueError` if a command of SLURM is missing."""
        if absent := [name for name in ("sbatch", "squeue", "scancel", "srun") if shutil.which(name) is None]:
            raise ValueError(f"{', '.join(absent)}: no such command. Start this on a login node of the cluster "
                             "(`module load slurm`, where that is needed), or use --on gpus")
        self.cluster, self.slots = cluster, cluster.max_jobs

    def submit(self, tasks: Sequence[Task]) -> list[str]:
        """As `JobEngine.submit`. Jobs of one name run one after the other, whoever submitted them."""
        cluster, first = self.cluster, tasks[0]
        executor = _executors().SlurmExecutor(folder_of(first), max_num_timeout=TIME_LIMITS_MET,
                                              python=python_of(first))
        executor.update_parameters(**{key: value for key, value in {
            "job_name": queue_name(first), "partition": cluster.partition, "account": cluster.account,
            "constraint": cluster.constraint, "time": cluster.time_minutes, "cpus_per_task": cluster.cpus,
            "mem": cluster.memory_gib and f"{cluster.memory_gib}GB", "gpus_per_node": cluster.gpus or None,
            "setup": list(cluster.setup) or None, "dependency": "singleton", "stderr_to_stdout": True,
            "comment": " ".join(str(task.part) for task in tasks if task.part is not None) or None,
            "additional_parameters": {"requeue": True, **cluster.options}}.items() if value is not None})
        try:
            return [job.job_id for job in executor.submit_array(tasks)] if len(tasks) > 1 else [
                executor.submit(first).job_id]
        except (_executors().core.utils.FailedJobError, _executors().core.utils.FailedSubmissionError) as error:
            raise ValueError(f"sbatch refused {queue_name(first)}: {' '.join(str(error).split())}. Mend "
                             f"{FILE}, then run the same command again") from error

    def find(self, task: Task) -> str | None:
        """As `JobEngine.find`; of an array, the comment has the experts in the order of its tasks."""
        for number, (seen, name, comment) in self._queue().items():
            if name == queue_name(task) and seen.state is not Queued.ENDED:
                position = number.partition("_")[2] or "0"
                if task.part is None or str(task.part) == [*comment.split(), *[""] * 999][int(position)]:
                    return number
        return None

    def states(self, ids: Iterable[str]) -> dict[str, Seen]:
        """As `JobEngine.states`, by one question for all."""
        queue = self._queue()
        return {number: queue[number][0] if number in queue else Seen(Queued.ENDED) for number in ids}

    def adopt(self, number: str, gpus: str | None) -> None:
        """Do nothing: SLURM gives out its GPUs."""

    def release(self, number: str) -> None:
        """Do nothing: SLURM gives out its GPUs."""

    def cancel(self, ids: Iterable[str]) -> None:
        """As `JobEngine.cancel`."""
        if ids := list(ids):
            subprocess.run(["scancel", *ids], check=False, capture_output=True)

    def _queue(self) -> dict[str, tuple[Seen, str, str]]:
        """Return number -> what is seen of it, name, comment, of all of this user's jobs that SLURM still knows."""
        command = ["squeue", f"--user={os.getuid()}", "--array", "--states=all", "--noheader",
                   "--format=%i|%T|%N|%j|%k"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode:
            raise ValueError(f"squeue failed ({' '.join(answer.stderr.split())}). Jobs go on; run the same command "
                             "again when the cluster answers")
        rows = (line.split("|", 4) for line in answer.stdout.splitlines() if line.count("|") >= 4)
        return {number: (Seen(self._state(word), word, node), name, comment)
                for number, word, node, name, comment in rows}

    def _state(self, word: str) -> Queued:
        return (Queued.RUNNING if word in self.OPEN else Queued.PENDING if word in self.WAITING else Queued.ENDED)


SLEEP_BETWEEN_OPERATIONS = "export GOMP_SPINCOUNT=0"
"""Threads that wait for one another spin, which takes the processor from the job beside them: two stages of two threads
each on two cores then take a third longer. No bit depends on it."""


class LocalGpus:
    """Every GPU of this machine, a job each, in processes that outlive the one that started them."""

    name, in_advance = On.GPUS, False

    def __init__(self, cluster: Cluster) -> None:
        """Raises `ValueError` if there is no GPU and none is named."""
        self.gpus = list(cluster.visible_gpus) if cluster.visible_gpus is not None else gpus_here()
        if not self.gpus:
            raise ValueError(f"--on gpus: this machine has no GPU that nvidia-smi lists. Name some as visible_gpus in "
                             f"{FILE} ([0, 1] runs two stages at once on processors alone), or leave --on out")
        self.slots, self.taken = len(self.gpus), dict[str, int]()
        # Ctrl-C in the terminal is for the head; what ignores a signal hands that on to what it starts.
        self.setup = ["trap '' INT HUP QUIT", f"export {BESIDE_VARIABLE}={self.slots}",
                      *[SLEEP_BETWEEN_OPERATIONS] * (self.slots > 1), *cluster.setup]

    def submit(self, tasks: Sequence[Task]) -> list[str]:
        """As `JobEngine.submit`; there are never more tasks than free GPUs."""
        return [self._start(task) for task in tasks]

    def _start(self, task: Task) -> str:
        gpu = next(gpu for gpu in self.gpus if gpu not in self.taken.values())
        executor = _executors().LocalExecutor(folder_of(task), max_num_timeout=TIME_LIMITS_MET, python=python_of(task))
        executor.update_parameters(gpus_per_node=1, visible_gpus=[gpu], timeout_min=MINUTES_OF_A_YEAR,
                                   stderr_to_stdout=True, setup=self.setup)
        number = process_id(int(executor.submit(task).job_id))
        self.taken[number] = gpu
        return number

    def adopt(self, number: str, gpus: str | None) -> None:
        """Count a GPU as taken by a job of an earlier head; one that has hardly begun may have any."""
        free = [gpu for gpu in self.gpus if gpu not in self.taken.values()]
        self.taken[number] = int(gpus) if gpus and gpus.isdecimal() else free[0] if free else self.gpus[0]

    def release(self, number: str) -> None:
        """As `JobEngine.release`: what is left of the job computes nothing."""
        self.taken.pop(number, None)

    def find(self, task: Task) -> str | None:
        """As `JobEngine.find`: a job that has not begun to say that it runs is known by what it is going to load."""
        from submitit.core.utils import DelayedSubmission

        for path in folder_of(task).glob("*_submitted.pkl"):
            pid = int(path.name.partition("_")[0])
            with contextlib.suppress(psutil.NoSuchProcess):
                if str(folder_of(task)) in " ".join(psutil.Process(pid).cmdline()):  # no stranger with its number
                    found = DelayedSubmission.load(path).function
                    if (found.stage, found.part) == (task.stage, task.part):
                        return process_id(pid)
        return None

    def states(self, ids: Iterable[str]) -> dict[str, Seen]:
        """As `JobEngine.states`."""
        return {number: Seen(Queued.RUNNING, "RUNNING", here()) if is_running(number)
                else Seen(Queued.ENDED) for number in ids}

    def cancel(self, ids: Iterable[str]) -> None:
        """As `JobEngine.cancel`."""
        for number in filter(is_running, ids):
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = psutil.Process(int(number.partition("-")[0]))
                for process in [parent, *parent.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()


def folder_of(task: Task) -> Path:
    """Return where submitit writes."""
    return Path(task.root, task.workspace) / QUEUE


def here() -> str:
    """Return what jobs call this machine."""
    return os.uname().nodename


def gpus_here() -> list[int]:
    """Return the numbers of this machine's GPUs, those of `CUDA_VISIBLE_DEVICES` alone if it is set; none without
    `nvidia-smi`.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [int(line) for line in answer.stdout.split()
            if line.isdecimal() and (visible is None or line in visible.split(","))]
