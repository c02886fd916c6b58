"""`repro run`: bring the pipeline up to date, then print the results and where the report is."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from repblend.report.tables import results_text
from repblend.stages.lock import only_writer
from repblend.store import read_json
from repro.grids import Grid, results_of
from repro.workspace import dvc, find_root, workspace_environment

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
REPORT = dvc("repro", "--single-item", "report")
"""The report alone, from whatever metrics there are: it would bring everything up to date that it shows."""


def main(targets: Sequence[str], grid: Grid) -> int:
    """Run the targets, or the grid and the report if there are none; return the exit code."""
    try:
        root = find_root()
        began = time.time()
        with only_writer(root / "checkpoints" / "locks" / "workspace.lock", f"workspace {root}", wait_seconds=3.0):
            part = [] if targets else results_of(grid, root)
            code = run_all([dvc("repro", *targets, *part), *([REPORT] if part else [])], root)
    except ValueError as error:
        print(f"repro run: {error}", file=sys.stderr)
        return 1
    if code:
        print(f"\nrepro run: stopped (exit code {code}). What was finished is kept: run the same command to go on. "
              "Logs are in logs/", file=sys.stderr)
        return code
    print(_closing_words(root, began))
    return 0


def run_all(commands: Sequence[list[str]], root: Path) -> int:
    """Run commands one after the other until one fails; return its exit code, or 0."""
    return next((code for command in commands if (code := run_stoppable(command, root))), 0)


def run_stoppable(command: list[str], root: Path) -> int:
    """Run a command in its own session; on Ctrl-C or SIGTERM stop all of it, then return 128 + the signal."""
    process = subprocess.Popen(command, cwd=root, env=workspace_environment(root), start_new_session=True)
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal_session(process, signal.SIGTERM)

    before: dict[signal.Signals, Callable | int | None] = {number: signal.signal(number, stop)
                                                           for number in STOP_SIGNALS}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else code


def signal_session(process: subprocess.Popen, number: signal.Signals) -> None:
    """Signal every process of a session that `run_stoppable` started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _closing_words(root: Path, began: float) -> str:
    records = [read_json(path) for path in sorted((root / "metrics" / "runs").glob("*.json"))]
    lines = ["", results_text(root), ""]
    if records:
        largest = max(records, key=lambda record: record["peak_memory_mib"])
        lines.append(f"This run took {time.time() - began:.0f} s. The stages took "
                     f"{sum(record['wall_seconds'] for record in records):.0f} s in all when they last ran; the most "
                     f"memory was {largest['peak_memory_mib']:.0f} MiB, in {largest['stage']}.")
    lines.append(f"Report: {root / 'paper' / 'report.html'}")
    return "\n".join(lines)
