"""How far a run is: a line when a stage begins, and, for the stage to go on from, what is left after it.

Which stages are still to run is guessed from outputs that are absent and from what ran before; how long they take, from
their last runs (`runs.jsonl`, of this machine or of the one that recorded them), times how much slower or faster this
run was until now. Stages that never ran take what those of their kind took.

Nothing but the standard library is imported, as in `repro.guarded_dvc`, which calls this.
"""

import json
import logging
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

COURSE = "REPBLEND_COURSE"
"""Variable that tells a stage's process: JSON, read by `repblend.progress`."""
RUNS, LOG = Path("runs.jsonl"), Path("logs/dvc.log")
SECONDS_WITHOUT_BAR = 3.0
"""DVC draws a bar for each file that it hashes or copies: only where that takes longer."""
ENOUGH_S = 10.0
"""Seconds of finished stages from which on they tell how fast this machine is."""


class Course:
    """The stages of a run, which of them have run, and how long they are known to take."""

    def __init__(self, stages: Sequence[Any], graph: Any, known: dict[str, float]) -> None:
        """Begin a run.

        Args:
            stages: of DVC, in the order of the run.
            graph: of DVC, from a stage to those that it needs; None where a single stage is asked for.
            known: stage, as `runs.jsonl` calls it -> seconds of its last run.
        """
        self._stages, self._graph, self._known = list(stages), graph, known
        self._ran: dict[str, tuple[float, float | None]] = {}
        """Stage -> when it began, and the seconds that it took."""

    def begin(self, stage: Any) -> str:
        """Note that a stage begins, let its process know what `repblend.progress` shows, and return a line."""
        number = next(number for number, each in enumerate(self._stages, 1) if each.addressing == stage.addressing)
        self._ran[stage.addressing] = time.monotonic(), None
        head = f"stage {number} of {len(self._stages)}, {stage.addressing.replace('@', ' ')}"
        later, speed = [self._seconds(each) for each in self._still_to_run(number)], self._speed()
        own, rest = self._seconds(stage), sum(filter(None, later)) * speed
        unknown = own is None or None in later
        os.environ[COURSE] = json.dumps({"head": head, "own": None if own is None else own * speed, "rest": rest,
                                         "unknown": unknown})
        return head + in_words((own or 0.0) * speed + rest, unknown)

    def end(self, stage: Any) -> None:
        """Note that a stage has ended, if it ran."""
        if found := self._ran.get(stage.addressing):
            self._ran[stage.addressing] = found[0], time.monotonic() - found[0]

    def _still_to_run(self, number: int) -> list[Any]:
        """Return the stages after the first `number` that are likely to run."""
        likely = {name for name in self._ran if name != "settings"}  # of its files each stage needs only its own
        found = []
        for stage in self._stages[number:]:
            needed = self._graph.successors(stage) if self._graph else ()
            if not all(out.exists for out in stage.outs) or any(each.addressing in likely for each in needed):
                likely.add(stage.addressing)
                found.append(stage)
        return found

    def _seconds(self, stage: Any) -> float | None:
        """What a stage took, or the median of those of its kind; None where there is none."""
        name = run_name(stage)
        kind = [seconds for each, seconds in self._known.items() if each.partition("@")[0] == name.partition("@")[0]]
        return self._known.get(name, statistics.median(kind) if kind else None)

    def _speed(self) -> float:
        """Seconds here per known second: of stages of this run that have ended."""
        pairs = [(took, self._known[run_name(stage)]) for stage in self._stages
                 if (took := self._ran.get(stage.addressing, (0.0, None))[1]) and run_name(stage) in self._known]
        took, known = (sum(each) for each in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
        return took / known if known > ENOUGH_S else 1.0


def in_words(seconds: float, at_least: bool = False) -> str:
    """Return `: about 4 min left in all`, or nothing where nothing is known."""
    if not seconds:
        return ""
    about = "at least" if at_least else "about"
    if seconds < 90:
        return f": {about} {max(1, round(seconds))} s left in all"
    if seconds < 5400:
        return f": {about} {seconds / 60:.0f} min left in all"
    return f": {about} {seconds / 3600:.1f} h left in all"


def run_name(stage: Any) -> str:
    """Return a DVC stage as `runs.jsonl` has it: of `python -m PACKAGE MODULE CELL`, `MODULE@CELL`."""
    return "@".join(stage.cmd.split()[3:]) if isinstance(stage.cmd, str) else stage.addressing


def known_seconds(path: Path) -> dict[str, float]:
    """Return the `machine_seconds` of the last run of every stage that ran through; none if the file cannot be read,
    which others tell of.
    """
    try:
        runs = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return machine_seconds((run["stage"], run.get("started", ""), float(run["wall_seconds"]), run.get("beside", 1))
                               for run in runs if not run.get("resumed"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def machine_seconds(runs: Iterable[tuple[str, str, float, int]]) -> dict[str, float]:
    """Return the seconds of a machine that stages took: those of stages side by side on its processors are shared.

    Args:
        runs: stage, when it began (ISO 8601), seconds by the clock, and how many the machine had at once at most.
    """
    found, edges = dict[str, float](), list[tuple[float, bool, str]]()
    for stage, started, seconds, beside in runs:
        found[stage] = 0.0 if beside > 1 else seconds
        if beside > 1:
            began = datetime.fromisoformat(started).timestamp()
            edges += [(began, True, stage), (began + seconds, False, stage)]
    running, before = set[str](), 0.0
    for moment, begins, stage in sorted(edges):
        for each in running:
            found[each] += (moment - before) / len(running)
        before = moment
        (running.add if begins else running.discard)(stage)
    return found


def tell_course() -> None:
    """Let this process's DVC say how far a run is when a stage begins, and leave what else it says to `logs/dvc.log`:
    warnings and errors come to the terminal as well.
    """
    from dvc.progress import Tqdm
    from dvc.repo import reproduce
    from dvc.stage import run as commands
    from dvc.ui import ui

    all_stages, one_stage, command = reproduce._reproduce, reproduce._reproduce_stage, commands.cmd_run
    draw, courses = Tqdm.display, list[Course]()

    def with_course(stages: Any, graph: Any = None, **settings: Any) -> Any:
        courses.append(Course(stages, graph, known_seconds(RUNS)))
        return all_stages(stages, graph=graph, repro_fn=noting_its_end, **settings)

    def noting_its_end(stage: Any, **settings: Any) -> Any:
        done = one_stage(stage, **settings)
        courses[-1].end(stage)
        return done

    def after_a_line(stage: Any, *arguments: Any, **settings: Any) -> Any:
        line = courses[-1].begin(stage) if courses else stage.addressing
        print(line[0].upper() + line[1:], flush=True)
        return command(stage, *arguments, **settings)

    def shown_late(bar: Any, *arguments: Any, **settings: Any) -> None:
        if time.time() - getattr(bar, "start_t", time.time()) > SECONDS_WITHOUT_BAR:
            draw(bar, *arguments, **settings)

    reproduce._reproduce, commands.cmd_run = with_course, after_a_line
    ui.enable = lambda: None
    Tqdm.display = shown_late
    _log_to(LOG)


def _log_to(path: Path) -> None:
    """Let DVC write its messages to a file that is begun anew; a link in its place is not followed."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    file = logging.FileHandler(path, "x", "utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    file.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is told of by outputs
    for name in ("dvc", "dvc_objects", "dvc_data"):
        logger = logging.getLogger(name)
        for handler in [each for each in logger.handlers if each.level < logging.WARNING]:
            logger.removeHandler(handler)
        logger.addHandler(file)
