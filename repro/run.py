"""`repro run`: bring the pipeline up to date, then print the results and where the report is."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from repblend.stages.context import repository_of
from repblend.store import JSON, read_json, write_json
from repro.checkpoints import fetch_missing
from repro.data_entry import how_to_bring
from repro.inputs import missing
from repro.profiles import Profile, profiles_of
from repro.run_page import CONTAINER, write_run_page
from repro.runner import ANY, Runner, Wishes, choose
from repro.workspace import MAKE_REPORT, find_root, git, only_run


def main(targets: Sequence[str], name: str, wishes: Wishes = ANY) -> int:
    """Run the targets, or the profile and its report if there are none; of a suite each profile after the one before.
    Return the exit code of the first that stops, or 0.
    """
    try:
        root = find_root()
        profiles = profiles_of(root, name)
        if absent := [found for profile in profiles if (found := _absent_inputs(profile))]:
            raise ValueError("\n".join(absent))  # of all before the first runs, which may take days
        return next((code for profile in profiles if (code := _run(profile, targets, choose(wishes, root)))), 0)
    except (ValueError, OSError) as error:
        print(f"repro run: {error}", file=sys.stderr)
        return 1


def _run(profile: Profile, targets: Sequence[str], runner: Runner) -> int:
    workspace, brought, began = profile.workspace, profile.brought(), time.time()
    with only_run(workspace):
        fetch_missing(profile)
        part = [] if targets else profile.results()
        code = runner.run(workspace, [("repro", *targets, *part), *([MAKE_REPORT] if part else [])], brought.folders)
        _write_record(runner, workspace, code)
        write_run_page(workspace)
    if code:
        print(f"\nrepro run: stopped (exit code {code}). What was finished is kept: run the same command to go on. "
              f"Logs are in {workspace / 'logs'}", file=sys.stderr)
        return code
    print(_closing_words(profile, began))
    return 0


def _absent_inputs(profile: Profile) -> str | None:
    """Say which of the user's files are not there: DVC would say no more than that an input is missing."""
    root, brought, data = repository_of(profile.workspace), profile.brought(), profile.params().data
    files = [*(file for files in brought.files.values() for file in files), *brought.folders]
    absent = missing(root, dict.fromkeys(files))
    outermost = [path for path in absent if not any(other in path.parents for other in absent)]
    if not outermost:
        return None
    folder = getattr(data, "folder", None)
    of_data = folder is not None and any(path.is_relative_to(root / folder) for path in outermost)
    return (f"profile {profile.name}: no such file: {', '.join(map(str, outermost))}. Put it there, or say in "
            f"{profile.workspace / 'params.yaml'} where it lies"
            + (f". {how_to_bring(data.name, folder)}" if of_data else ""))


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


def _closing_words(profile: Profile, began: float) -> str:
    root = profile.workspace
    found = [read_json(path) for path in sorted((root / "metrics" / "runs").glob("*.json"))]
    records = [record for record in found if "stage" in record]
    lines = ["", profile.kind.results(root), ""]
    if records:
        largest = max(records, key=lambda record: record["peak_memory_mib"])
        lines.append(f"This run took {time.time() - began:.0f} s. The stages took "
                     f"{sum(record['wall_seconds'] for record in records):.0f} s in all when they last ran; the most "
                     f"memory was {largest['peak_memory_mib']:.0f} MiB, in {largest['stage']}.")
    lines.append(f"Report: {root / profile.kind.report}")
    return "\n".join(lines)
