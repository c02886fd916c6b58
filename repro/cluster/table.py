"""`repro jobs`: what becomes of the jobs, as a table that refreshes; with `--cancel`, the end of those not wanted.

The files of the jobs say what they did, the engine says which of them still wait or run. Nothing is written here but
`cancelled.json`, before the engine is told to end a job: the run that submitted it must not submit it again.
"""

import contextlib
import datetime
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from repblend.escape import one_line
from repblend.report.table import in_columns
from repblend.runtime.processes import only_writer
from repro import QUICKSTART
from repro.cluster.engines import JobEngine, Queued, Seen, here, open_engine
from repro.cluster.jobs import CANCELLED, ENDED, JOBS, Cancellation, Job, State, read_job, read_jobs, stamp
from repro.cluster.settings import On, read_cluster
from repro.plan import duration
from repro.profiles import FOLDER, members, workspace_of
from repro.workspace import LOCK, find_root

SECONDS_BETWEEN_TABLES = 5.0
END_OF_OUTPUT = 8192
"""Bytes of a job's output in which its last progress line is looked for."""
SHOWN = 60
"""Characters of a progress line."""
LEFT, OVER = re.compile(r"about (\d+) s left"), re.compile(r": \d+ \S+ done in [\d.]+ s")
"""What progress lines say (`repblend.progress`)."""
LINES_AROUND = 6
"""Of a terminal, for all but the jobs."""
CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def main(names: Sequence[str], profile: str | None, cancel: bool, once: bool) -> int:
    """Show jobs, again and again while some are open and this is a terminal, or cancel them; return the exit code.

    Args:
        names: of stages or jobs; all if there are none.
        profile: whose jobs, or which suite's; None: of every workspace that has some.
        once: show one table even in a terminal.
    """
    try:
        root = find_root()
        folders = workspaces(root, profile)
        if cancel:
            print(cancel_jobs(root, chosen(folders, names)))
            return 0
        refreshes = sys.stdout.isatty() and not once
        while True:
            rows = rows_of(root, chosen(folders, names))
            lines = shutil.get_terminal_size().lines if refreshes else None
            print((CLEAR if refreshes else "") + table_text(root, rows, lines), flush=True)
            if not refreshes or not any(row.is_open for row in rows):
                return 0
            time.sleep(SECONDS_BETWEEN_TABLES)
    except KeyboardInterrupt:
        print("\nThe jobs go on.")
        return 0
    except (ValueError, OSError) as error:
        print(f"repro jobs: {error}", file=sys.stderr)
        return 1


def workspaces(root: Path, profile: str | None) -> list[Path]:
    """Return the workspaces of a profile or suite, or all of a clone; raises `ValueError` if there is no such profile.
    """
    if profile is not None:
        return [workspace_of(root, member) for member in members(root, profile)]
    return [root, *sorted(path for path in (root / FOLDER).glob("*") if path.is_dir())]


def chosen(folders: Iterable[Path], names: Sequence[str]) -> list[Job]:
    """Return the jobs with these names, or of these stages or kinds of stage, in the order of their submission.

    Raises:
        ValueError: a name is that of none, or a job's file is not as expected.
    """
    jobs = sorted((job for folder in folders for job in read_jobs(folder)), key=lambda job: job.submission.submitted)
    known = {name for job in jobs for name in _names(job)}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{', '.join(unknown)}: no such job; expected some of "
                         f"{', '.join(sorted(known)) or 'those that a run submits'}")
    return [job for job in jobs if not names or _names(job) & {*names}]


def _names(job: Job) -> set[str]:
    """What a job can be asked for by: `distill` is every `distill@METHOD-BUDGET`, as in `repro run`."""
    stage = job.submission.stage
    return {job.name, stage, stage.partition("@")[0]}


@dataclass(frozen=True)
class Row:
    """A job, as its files and its engine say."""

    job: Job
    seen: Seen | None
    """None: it has ended, or the engine does not answer."""

    @property
    def workspace(self) -> Path:
        return self.job.folder.parents[len(JOBS.parts)]

    @property
    def state(self) -> str:
        """What has become of it, in a word."""
        if self.job.state in ENDED or self.seen is None:
            return str(self.job.state)
        if self.seen.state is Queued.ENDED:
            return LOST
        return str(State.WAITING if self.seen.state is Queued.PENDING else State.RUNNING)

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (State.WAITING, State.RUNNING)


LOST = "lost"
"""Of a job that its engine does not know any more and that has not said how it ended: killed, or its node failed."""


def rows_of(root: Path, jobs: Sequence[Job]) -> list[Row]:
    """Ask the engines for jobs that have not ended. One that ended just then is read again: it may have said how."""
    seen = dict[str, Seen]()
    for on, engine, ids in _asked(root, jobs):
        try:
            seen |= {f"{on} {number}": found for number, found in engine.states(ids).items()}
        except ValueError as error:
            print(f"repro jobs: {error}", file=sys.stderr)
    rows = [Row(job, seen.get(f"{job.submission.engine} {job.submission.id}")) for job in jobs]
    return [Row(read_job(row.job.folder) or row.job, row.seen) if row.state == LOST else row for row in rows]


def _asked(root: Path, jobs: Iterable[Job]) -> Iterator[tuple[On, JobEngine, list[str]]]:
    """Yield each engine that can be reached from here, with its numbers of the jobs that have not ended."""
    for on in On:
        ids = [job.submission.id for job in jobs
               if job.state not in ENDED and job.submission.engine == on and not is_elsewhere(job)]
        if numbers := [number for number in ids if number]:
            try:
                yield on, open_engine(on, read_cluster(root, on)), numbers
            except ValueError as error:
                print(f"repro jobs: only the jobs' own files can be read here. {error}", file=sys.stderr)


def is_elsewhere(job: Job) -> bool:
    """Whether a job is a process of another machine, of which nothing can be known here."""
    return job.submission.engine == On.GPUS and job.ran is not None and job.ran.node != here()


# The table.


def table_text(root: Path, rows: Sequence[Row], lines: int | None = None) -> str:
    """Return a line per job and what they come to.

    Args:
        lines: that there is room for; what is done or waits is left out first. None: there is enough.
    """
    if not rows:
        return "No jobs yet. `repro run --on slurm` or `repro run --on gpus` submits them."
    head = ("stage", "state", "node", "GPU", "elapsed", "expected end", "last progress")
    several = len({row.workspace for row in rows}) > 1
    shown = rows if lines is None else fitting(rows, lines - LINES_AROUND)
    table = in_columns([head, *(_line(root, row, several) for row in shown)])
    counts = Counter(row.state for row in rows)
    words = [", ".join(f"{number} {state}" for state, number in counts.items()) + (
        f"; {len(rows) - len(shown)} of them are not shown." if len(shown) < len(rows) else ".")]
    if failed := [row for row in rows if row.job.state in (State.FAILED, State.REFUSED)]:
        words += [f"{row.job.name} {row.state}: {_reason(row.job)}; all of it: {row.job.output}" for row in failed]
    if any(row.is_open or row.state == LOST for row in rows) and not _has_head(root):
        on = rows[-1].job.submission.engine
        words.append(f"Nobody submits what comes next: `repro run --on {on}` does.")
    return "\n".join([*table, "", *words])


def fitting(rows: Sequence[Row], most: int) -> list[Row]:
    """Return at most so many rows, in their order: those that are done are left out first, then those that wait."""
    def rank(row: Row) -> int:
        return {State.DONE: 2, State.WAITING: 1}.get(row.state, 0)

    kept = sorted(range(len(rows)), key=lambda index: (rank(rows[index]), index))[:max(most, 1)]
    return [rows[index] for index in sorted(kept)]


def _line(root: Path, row: Row, several: bool) -> tuple[str, ...]:
    job, ran = row.job, row.job.ran
    profile = QUICKSTART if row.workspace == root else row.workspace.name
    name = f"{profile}: {job.name}" if several else job.name
    node = (ran.node if ran else row.seen.node if row.seen else "") or "-"
    gpu = "-" if ran is None or ran.hardware.gpu is None else f"{ran.hardware.gpu} ({ran.gpus})"
    progress = last_progress(job.output) if ran else ""
    left = LEFT.search(progress)
    end = "-" if not left or row.state != State.RUNNING else _moment(
        job.output.stat().st_mtime + int(left[1]))
    return tuple(one_line(text) for text in (
        name, row.state, node, gpu, "-" if job.seconds is None else duration(job.seconds), end, progress[:SHOWN]))


def last_progress(output: Path) -> str:
    """Return the last line that a job has printed, or the last one that says how long it takes, if nothing came to its
    end since.
    """
    try:
        with output.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - END_OF_OUTPUT))
            lines = [line.strip() for line in re.split(r"[\r\n]+", file.read().decode("utf-8", "replace"))]
    except OSError:  # it has printed nothing yet
        return ""
    lines = [line for line in lines if line]
    telling = next((line for line in reversed(lines) if LEFT.search(line) or OVER.search(line)), "")
    return telling if LEFT.search(telling) else lines[-1] if lines else ""


def _reason(job: Job) -> str:
    return one_line(job.ran.reason) if job.ran and job.ran.reason else "no reason was written down"


def _moment(seconds: float) -> str:
    """Return a time as a clock on this machine's wall shows it, with the day if that is another."""
    moment = datetime.datetime.fromtimestamp(seconds)
    return f"{moment:%H:%M}" if moment.date() == datetime.date.today() else f"{moment:%a %d %b %H:%M}"


def _has_head(root: Path) -> bool:
    """Whether a run holds the clone's lock."""
    with contextlib.suppress(ValueError), only_writer(root / LOCK, "", wait_seconds=0.0):
        return False
    return True


# Cancelling.


def cancel_jobs(root: Path, jobs: Sequence[Job]) -> str:
    """End the jobs that wait or run; return what is to be said.

    Raises:
        ValueError: the engine of one cannot be reached from here. Nothing was ended.
    """
    wanted = [job for job in jobs if job.state not in ENDED and job.submission.id]
    if elsewhere := {f"{job.name} (on {job.ran.node})" for job in wanted if job.ran and is_elsewhere(job)}:
        raise ValueError(f"{', '.join(sorted(elsewhere))}: processes of another machine. Cancel them there")
    engines = [(open_engine(on, read_cluster(root, on)), of) for on in On
               if (of := [job for job in wanted if job.submission.engine == on])]
    for job in wanted:
        Cancellation(attempt=job.submission.attempt, asked=stamp()).write(job.folder / CANCELLED)
    for engine, of in engines:
        engine.cancel([str(job.submission.id) for job in of])
    if not wanted:
        return "Nothing to cancel: no job waits or runs."
    return (f"Cancelled: {', '.join(job.name for job in wanted)}. What they have stored is kept: "
            f"the next `repro run --on {wanted[0].submission.engine}` goes on from there.")
