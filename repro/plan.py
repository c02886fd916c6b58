"""`repro plan`: what a run would do, and what it would cost, before anything starts."""

import sys
from collections.abc import Sequence
from pathlib import Path

from repblend.params import Params, read_params
from repblend.store import read_json
from repro.plan_downloads import missing
from repro.plan_state import PlannedStage, planned_stages
from repro.plan_table import Row, plan_text
from repro.plan_times import Grid, estimate
from repro.plan_work import Counts, output_bytes
from repro.profiles import Profile, profiles_of
from repro.workspace import find_root


def main(targets: Sequence[str], name: str) -> int:
    """Print the plan of the targets, or of all of the profile if there are none; return the exit code."""
    try:
        root = find_root()
        for profile in profiles_of(root, name):
            print(_text(profile, root, targets))
    except (ValueError, OSError) as error:
        print(f"repro plan: {error}", file=sys.stderr)
        return 1
    return 0


def _text(profile: Profile, root: Path, targets: Sequence[str]) -> str:
    params = profile.params()
    rows = plan(profile.workspace, root, params, targets or profile.results())
    absent = missing(params, root)
    parts = [f"Profile {profile.name}, in {profile.workspace}, on device {params.compute.device}", plan_text(rows)]
    return "\n\n".join([*parts, *(["To be fetched first:\n" + "\n".join(absent)] if absent else [])]) + "\n"


def plan(workspace: Path, root: Path, params: object, targets: Sequence[str]) -> list[Row]:
    """Return what each stage that the targets need is in for.

    Args:
        root: the clone's folder, whose own grid has run: what is extrapolated from.
        params: those of the workspace, of whatever kind. Of the multimodal kind alone the work can be counted.

    Raises:
        ValueError: a target is no stage, or a file is not as expected.
    """
    grid, reference = grid_of(workspace, params), grid_of(root, read_params(root / "params.yaml"))
    return [Row(stage, estimate(stage, grid, reference), _bytes(stage, grid))
            for stage in planned_stages(workspace, targets)]


def grid_of(workspace: Path, params: object) -> Grid:
    """Read what is known of a workspace's pipeline."""
    if not isinstance(params, Params):
        return Grid.of(workspace, None, None)
    return Grid.of(workspace, params, _counts(workspace, params))


def _counts(workspace: Path, params: Params) -> Counts | None:
    """Return the size of the dataset as it was counted, else as it has to be; None if neither is known."""
    prepared = workspace / "metrics" / "prepare.json"
    if prepared.is_file():
        return Counts.of(read_json(prepared)["counts"])
    expected = getattr(params.data, "expected", {})
    if any(split not in expected or expected[split].captions is None for split in ("train", "val", "test")):
        return None
    return Counts.of({split: counts.model_dump() for split, counts in expected.items()})


def _bytes(stage: PlannedStage, grid: Grid) -> float | None:
    try:
        return output_bytes(stage.module, stage.cell, grid.load) if grid.load else None
    except ValueError:  # an encoder of unknown size: the estimate of the time says so
        return None
