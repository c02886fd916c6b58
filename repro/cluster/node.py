"""What a job runs on its node: one stage, or one expert, in a private checkout over the shared cache.

The checkout has the tracked files as they were when the run began (its snapshot), and the head's `dvc.lock` and
`runs.jsonl`. Inputs come from the shared cache as hard links (or copies, if it lies on another disk: a symbolic link
out of a data set would be refused), unfinished work, locks and logs stay in the shared workspace, and the result goes
into DVC's run cache. The checkout is removed afterwards.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repblend.runtime.context import SHARED_VARIABLE
from repblend.runtime.locked import LOCK
from repblend.runtime.processes import kill_children
from repblend.runtime.provenance import MIXED_VARIABLE, processor, read_runs
from repro import QUICKSTART
from repro.cluster.disk import full_disk_told
from repro.cluster.inside import DONE, FAILED
from repro.cluster.jobs import OUTPUT, RAN, Hardware, Ran, State, job_folder, job_name, process_id, stamp
from repro.cluster.settings import On
from repro.engines.local import LocalRunner
from repro.workspace import cache_of

PRIVATE = Path(".dvc/tmp/jobs")
"""In the clone: snapshots and checkouts."""
HEADING = "--- {name}, "
"""Begins the first line that an attempt of a job prints."""
CONFIG = """\
[core]
    no_scm = true
[cache]
    dir = {cache}
    type = {links}
"""
RUNS = "runs.jsonl"
DOCKER = "docker"
"""In the place of an image's path: stages run in containers of this node's Docker engine."""


@dataclass(frozen=True)
class Task:
    """What is to be computed, with what: all that a job is given. A job is this object, pickled, and called."""

    root: str
    """The clone, on a disk that every node sees."""
    workspace: str
    """As seen from the clone; "." for the clone itself."""
    stage: str
    """As DVC calls it: `distill@repblend-100`."""
    part: int | None
    """Number of the expert that is trained alone; None for a whole stage."""
    attempt: int
    snapshot: str
    """Folder with the tracked files as they were when the run began."""
    expects: Hardware | None
    """The kind that the workspace's results were computed on; None if there are none, or any kind is right."""
    on: On = On.SLURM
    on_gpu: bool = False
    """Whether the profile's stages compute on a GPU."""
    is_mixed: bool = False
    """Whether results say which hardware they are from."""
    image: str | None = None
    """Apptainer's image, or `docker`; None for the Python of this process."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What the user brings: where stages look for it -> where it lies."""

    @property
    def name(self) -> str:
        return job_name(self.stage, self.part)

    @property
    def shared(self) -> Path:
        """The workspace."""
        return Path(self.root, self.workspace)

    @property
    def folder(self) -> Path:
        return job_folder(self.shared, self.name)

    @property
    def checkout(self) -> Path:
        """The private clone."""
        return Path(self.root) / PRIVATE / (self.shared.name if self.workspace != "." else QUICKSTART) / self.name

    def checkpoint(self) -> Any:
        """Return what submitit queues again when the job's time is over: the same, which goes on where it was. What
        computes ends before the job is queued: nothing else sees to that everywhere.
        """
        from submitit.helpers import DelayedSubmission

        kill_children()
        return DelayedSubmission(self)

    def __call__(self) -> int:
        """Run the job and write down how it went; return the exit code."""
        try:
            return self._run_and_note()
        except OSError as error:  # not even that can be written: the head finds the disk full, and says so
            with contextlib.suppress(OSError):
                print(error, file=sys.stderr, flush=True)
            return 1

    def _run_and_note(self) -> int:
        if self.on is On.GPUS:
            os.setsid()  # Ctrl-C in the terminal is for the head
        output = os.open(self.folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(output, stream)
        ran = Ran(attempt=self.attempt, id=number_of_this_job(self.on), state=State.RUNNING, node=os.uname().nodename,
                  pid=os.getpid(), hardware=hardware_here(self.on_gpu), gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
                  started=stamp())
        print(f"{HEADING.format(name=self.name)}attempt {self.attempt}: job {ran.id} on {ran.node}, {ran.hardware}, "
              f"{ran.started}", flush=True)
        ran.write(self.folder / RAN)
        if self.expects is not None and ran.hardware != self.expects:
            return self._end(ran, State.REFUSED, other_kind(ran.hardware, self.expects))
        try:
            with self._private_checkout() as workspace:
                before = read_runs(workspace / RUNS)
                code = self._run(workspace)
                run = next((run for run in read_runs(workspace / RUNS) if run not in before), None)
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr, flush=True)
            return self._end(ran, State.FAILED, str(error))
        state = State.DONE if code == DONE else State.FAILED if code == FAILED else State.KILLED
        return self._end(ran.model_copy(update={"run": run}), state, None if code == DONE else f"exit code {code}")

    def _end(self, ran: Ran, state: State, reason: str | None) -> int:
        ran.model_copy(update={"state": state, "reason": reason, "ended": stamp()}).write(self.folder / RAN)
        print(f"--- {state}{f': {reason}' if reason else ''}", flush=True)
        return 0 if state is State.DONE else 1

    @contextlib.contextmanager
    def _private_checkout(self) -> Iterator[Path]:
        """Make the checkout anew, and remove it afterwards; yield its workspace."""
        clone = self.checkout
        workspace = clone / self.workspace
        links = "copy" if self.image == DOCKER else "hardlink,copy"
        config = CONFIG.format(cache=cache_of(Path(self.root)).resolve(), links=links)
        shutil.rmtree(clone, ignore_errors=True)
        try:
            with full_disk_told(clone):
                shutil.copytree(self.snapshot, clone, symlinks=True)
                for name in (LOCK, RUNS):  # the report says where results were computed
                    if (self.shared / name).is_file():
                        shutil.copyfile(self.shared / name, workspace / name)
                (clone / ".dvc/config.local").write_text(config)
            yield workspace
        finally:
            shutil.rmtree(clone, ignore_errors=True)

    def _run(self, workspace: Path) -> int:
        """Run DVC in the checkout, where the stages of this job are to run; return its exit code."""
        arguments = ("job", self.stage, *(() if self.part is None else (str(self.part),)))
        inputs = {Path(place): Path(source) for place, source in self.inputs.items()}
        os.environ["DVC_SITE_CACHE_DIR"] = str(self.checkout / ".dvc/tmp/site")
        if self.is_mixed:
            os.environ[MIXED_VARIABLE] = "1"
        if self.image is None:
            os.environ[SHARED_VARIABLE] = str(self.shared)
            return LocalRunner().run(workspace, [arguments], inputs)
        from repro.cluster.containers import run_in_apptainer, run_in_docker

        return (run_in_docker if self.image == DOCKER else run_in_apptainer)(self, workspace, arguments, inputs)


def other_kind(found: Hardware, expected: Hardware) -> str:
    """Say why a result is not taken: bytes differ between kinds of hardware."""
    return (f"computed on {found}, while the other results of the workspace are from {expected}. Ask for nodes of one "
            "kind (`constraint` in cluster.yaml), or allow both with --mixed: every metrics file then says its own")


def number_of_this_job(on: On) -> str:
    """Return the engine's number of the job that this process is."""
    if on is On.GPUS:
        return process_id(int(os.environ["SUBMITIT_LOCAL_JOB_ID"]))
    array, place = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{place}" if array else os.environ["SLURM_JOB_ID"]


def hardware_here(on_gpu: bool) -> Hardware:
    """Return what this job computes on."""
    return Hardware(processor=processor(), gpu=gpu_name() if on_gpu else None)


def gpu_name() -> str:
    """Return the name of the first GPU that this job sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", *([f"--id={visible}"] if visible else [])]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown GPU"
    return next(iter(answer.stdout.splitlines()), "").strip() or "unknown GPU"
