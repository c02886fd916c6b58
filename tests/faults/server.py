"""A process that has imported every stage and forks a child for each run: a fault costs no start of an interpreter.

`Server` is the side of the tests; `python -m tests.faults.server` the other. Nothing runs in the server itself, so it
has one thread and no state of a run.
"""

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.points import SIGNALS, Fault, Point, arm, shift_clock

ROOT = Path(__file__).parents[2]
SECONDS_PER_RUN = 120


class Run(NamedTuple):
    """How a run ended."""

    code: int
    """Its exit code; of a signal that ended it, the negative number."""
    output: str
    hit: bool
    """Whether the fault happened."""
    trace: list[Point]
    """The points passed, of a run that came to its end."""
    seconds: float
    """Of processor time."""


@dataclass
class Server:
    """Starts runs in a process that has everything imported."""

    process: subprocess.Popen[str]
    notes: Path
    """A folder for what runs say."""
    num_runs: int = field(default=0)

    def run(self, folder: Path, *command: str, fault: Fault | None = None, clock: tuple[float, int] | None = None,
            interrupt: tuple[str, float] | None = None, watched: Path | None = None) -> Run:
        """Run a command in a folder, and return how it ended.

        Args:
            fault: what happens where.
            clock: the seconds by which the clock jumps, and after how many looks at it.
            interrupt: a signal, and after how many seconds it is sent.
            watched: a folder; the seconds count from the first change in it.
        """
        self.num_runs += 1
        request = {"folder": str(folder), "command": command, "fault": fault, "clock": clock, "interrupt": interrupt,
                   "watched": watched and str(watched), "notes": str(self.notes / str(self.num_runs))}
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the server ended; it was asked {request}"
        found = json.loads(answer)
        return Run(found["code"], found["output"], found["hit"], [Point(*point) for point in found["trace"]],
                   found["seconds"])


@contextlib.contextmanager
def started(notes: Path) -> Iterator[Server]:
    """Start the other side; end it when the body is over."""
    notes.mkdir(parents=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1",
                                "PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": str(notes / "matplotlib")}
    process = subprocess.Popen([sys.executable, "-m", "tests.faults.server"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    try:
        yield Server(process, notes)
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(timeout=30)


# The other side.

BLOCKED = tuple(SIGNALS.values())


def commands() -> dict[str, Any]:
    """Import all that runs, and return what takes a command's arguments, by its first word."""
    import torch
    from dvc.cli import main as dvc_main
    from dvc.commands.repro import CmdRepro  # noqa: F401 (imported before anything is forked)
    from dvc.repo.index import Index  # noqa: F401 (likewise)

    from repblend.encoders import registry
    from repblend.runtime import harness

    harness.prepare_process()
    torch.set_num_threads(1)
    for name in ("load_image_encoder", "load_text_encoder"):
        setattr(registry, name, cache(getattr(registry, name)))
    from repblend.release.__main__ import main as release
    from repblend.report import page
    from repblend.report.__main__ import REPORT
    from repblend.stages.pipeline import Context
    from repblend.ufc.report.__main__ import REPORT as UFC_REPORT
    from repblend.ufc.stages.pipeline import UfcContext
    from repro.cli import app
    from repro.guarded_dvc import loading_only, write_changed_stages, write_files_whole
    from repro.workspace import only_run

    def dvc() -> int:
        with only_run(Path.cwd()), loading_only(Path.cwd()):  # as `repro run` and its jobs call it
            return dvc_main(["repro"])

    write_files_whole()
    write_changed_stages()
    page._execute = lambda *_: None  # a kernel is a process of its own, which writes nothing here
    for context in (Context, UfcContext):
        for stage in context.pipeline.stages:
            if context.pipeline.stages[stage].module is None:
                context.pipeline.function(stage)
    registry.load_text_encoder("all-MiniLM-L6-v2")
    registry.load_image_encoder("efficientnet_lite0", 32)
    return {"multimodal": lambda *words: harness.main(Context, "", words),
            "ufc": lambda *words: harness.main(UfcContext, "", words),
            "report": one_figure(REPORT).main, "ufc-report": one_figure(UFC_REPORT).main,
            "dvc": dvc, "repro": lambda *words: app([*words]), "export": lambda *words: release([*words])}


def one_figure(spec: Any) -> Any:
    """Return what a report consists of, with one of its figures: all are written alike, and drawing takes long."""
    return replace(spec, figures=dict(list(spec.figures.items())[:1]))


def child(known: dict[str, Any], request: dict[str, Any], output: int) -> None:
    """Be the run that was asked for, print to a file that is open, and end. Signals are blocked at first."""
    code = 70
    try:
        folder, notes = Path(request["folder"]), request["notes"]
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.chdir(folder)
        tempfile.tempdir = str(folder / "tmp")
        (folder / "tmp").mkdir(exist_ok=True)
        if request["clock"]:
            shift_clock(*request["clock"])
        kind, point = request["fault"] or (None, None)
        make = os.open
        points = arm(folder, Fault(kind, Point(*point)) if point else None,
                     lambda: os.close(make(f"{notes}.hit", os.O_CREAT | os.O_WRONLY)))
        first, *words = request["command"]
        begin_to_listen()
        try:
            code = known[first](*words)
        except SystemExit as end:
            code = int(end.code or 0)
        descriptor = make(f"{notes}.trace", os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, json.dumps(points.trace).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def begin_to_listen() -> None:
    """Let signals reach the command from here on; one that came before ends this process as it would an interpreter
    that has not come to the command's first line yet.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def files_in(folder: str) -> dict[str, int]:
    """Return when each safetensors file in a folder was changed last."""
    found = {}
    for path in Path(folder).rglob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # renamed while we looked
            found[str(path)] = path.stat().st_mtime_ns
    return found


def wait(pid: int, interrupt: tuple[str, float] | None, watched: str | None) -> tuple[int, bool, float]:
    """Wait for a child, sending it a signal meanwhile; return its exit code, whether the signal was sent, and the
    processor time that the child took.
    """
    descriptor, sent = os.pidfd_open(pid), False
    try:
        before = files_in(watched) if watched else {}
        while watched and files_in(watched) == before and not select.select([descriptor], [], [], 0.002)[0]:
            pass
        if interrupt and not select.select([descriptor], [], [], interrupt[1])[0]:
            os.kill(pid, signal.Signals[interrupt[0]])
            sent = True
        if not select.select([descriptor], [], [], SECONDS_PER_RUN)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(descriptor)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), sent, usage.ru_utime + usage.ru_stime


def serve() -> None:
    """Answer one request after the other."""
    known, answers = commands(), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        # A child that is killed at once has its file, and one that gets a signal at once ends as others do.
        output = os.open(f"{request['notes']}.output", os.O_CREAT | os.O_WRONLY)
        signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        pid = os.fork()
        if pid == 0:
            child(known, request, output)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
        os.close(output)
        code, sent, seconds = wait(pid, request["interrupt"], request["watched"])
        notes = Path(request["notes"])
        trace = notes.with_suffix(".trace")
        answers.write(json.dumps({
            "code": code, "output": notes.with_suffix(".output").read_text("utf-8", "replace"),
            "hit": sent or notes.with_suffix(".hit").exists(),
            "trace": json.loads(trace.read_text()) if trace.exists() else [],
            "seconds": seconds}) + "\n")
        answers.flush()


if __name__ == "__main__":
    random.seed(0)
    serve()
