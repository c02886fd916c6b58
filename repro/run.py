"""`repro run`: bring the pipeline up to date, then print the results and where the report is."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from repblend.report.tables import results_text
from repblend.store import JSON, read_json, write_json
from repro.grids import Grid, results_of
from repro.run_page import CONTAINER, write_run_page
from repro.runner import ANY, Runner, Wishes, choose
from repro.workspace import MAKE_REPORT, find_root, git, only_run


def main(targets: Sequence[str], grid: Grid, wishes: Wishes = ANY) -> int:
    """Run the targets, or the grid and the report if there are none; return the exit code."""
    try:
        root = find_root()
        began = time.time()
        runner = choose(wishes, root)
        with only_run(root):
            part = [] if targets else results_of(grid, root)
            code = runner.run(root, [("repro", *targets, *part), *([MAKE_REPORT] if part else [])])
            _write_record(runner, root, code)
            write_run_page(root)
    except (ValueError, OSError) as error:
        print(f"repro run: {error}", file=sys.stderr)
        return 1
    if code:
        print(f"\nrepro run: stopped (exit code {code}). What was finished is kept: run the same command to go on. "
              "Logs are in logs/", file=sys.stderr)
        return code
    print(_closing_words(root, began))
    return 0


def _write_record(runner: Runner, root: Path, code: int) -> None:
    record = runner.record()
    if record is not None and not code:
        write_json(root / CONTAINER, record | commit_of(root))


def commit_of(root: Path) -> JSON:
    """Return the commit and whether tracked files differ from it, as run records have them (null: no git clone)."""
    try:
        return {"commit": git(root, "rev-parse", "HEAD"),
                "dirty": bool(git(root, "status", "--porcelain", "--untracked-files=no"))}
    except ValueError:
        return {"commit": None, "dirty": None}


def _closing_words(root: Path, began: float) -> str:
    found = [read_json(path) for path in sorted((root / "metrics" / "runs").glob("*.json"))]
    records = [record for record in found if "stage" in record]
    lines = ["", results_text(root), ""]
    if records:
        largest = max(records, key=lambda record: record["peak_memory_mib"])
        lines.append(f"This run took {time.time() - began:.0f} s. The stages took "
                     f"{sum(record['wall_seconds'] for record in records):.0f} s in all when they last ran; the most "
                     f"memory was {largest['peak_memory_mib']:.0f} MiB, in {largest['stage']}.")
    lines.append(f"Report: {root / 'paper' / 'report.html'}")
    return "\n".join(lines)
