"""`repro verify`: would I get it again? Clean checkout, no cache, every stage, every output's hash (DESIGN section 7).

Every output and the committed metrics are removed from the checkout first and the run cache is off, so nothing can pass
by lying there already. Metrics of stages that are not verified come back before the report, which shows them too.
"""

import datetime
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from repblend.params import read_yaml
from repblend.store import JSON, write_json
from repro.checkpoints import fetch_missing
from repro.inputs import link
from repro.profiles import Profile, profiles_of
from repro.run_page import VERIFICATION, write_run_page
from repro.runner import ANY, Runner, Wishes, choose
from repro.workspace import MAKE_REPORT, find_root, git, only_run

LOCK = "dvc.lock"
AGAIN = "--no-run-cache"
"""Of `dvc repro`: outputs that are not there are made, not fetched from what an earlier run left."""


@dataclass(frozen=True)
class Verdict:
    """What became of one output."""

    stage: str
    path: str
    expected: str | None
    """Hash in the committed dvc.lock; None if it has no such output."""
    found: str | None
    """Hash after the run; None if it was not made."""

    @property
    def same(self) -> bool:
        return self.expected is not None and self.expected == self.found

    def __str__(self) -> str:
        if self.same:
            return f"same     {self.path}"
        if self.found is None:
            return f"MISSING  {self.path} (stage {self.stage})"
        if self.expected is None:
            return f"UNKNOWN  {self.path} (stage {self.stage}; dvc.lock does not know it)"
        return f"DIFFERS  {self.path} (stage {self.stage}: expected {self.expected}, found {self.found})"


def main(targets: Sequence[str], name: str, wishes: Wishes = ANY) -> int:
    """Verify a profile and its report (or the targets and what they need); return 0 if every output is the same. Of a
    suite each profile is verified.
    """
    try:
        root = find_root()
        commit = _say_what_is_verified(root)
        codes = [_verify(root, profile, targets, choose(wishes, root), commit) for profile in profiles_of(root, name)]
    except (ValueError, OSError) as error:
        print(f"repro verify: {error}", file=sys.stderr)
        return 1
    return max(codes)


def _verify(root: Path, profile: Profile, targets: Sequence[str], runner: Runner, commit: str) -> int:
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="repro-verify-") as folder:
        clean = profile.in_clone(root, Path(folder) / "checkout")
        _clone(root, Path(folder) / "checkout")
        _check_committed(clean, profile, commit)
        fetch_missing(profile)
        link(root, Path(folder) / "checkout", clean.brought().folders)
        before = output_hashes(clean.workspace / LOCK)
        _remove_outputs(clean.workspace, before)
        code, stages = _run_again(runner, clean, targets)
        if code:
            print(f"repro verify: the pipeline stopped with exit code {code}, see above", file=sys.stderr)
            return code
        verdicts = compare(before, output_hashes(clean.workspace / LOCK), stages)
    write_json(profile.workspace / VERIFICATION, _record(verdicts, commit, began, runner))
    write_run_page(profile.workspace)
    return _report(verdicts)


def output_hashes(lock: Path) -> dict[tuple[str, str], str]:
    """Return (stage, path) -> hash of every output in a dvc.lock.

    Raises:
        ValueError: the file is missing or not of that form.
    """
    content = read_yaml(lock)
    if not isinstance(content, dict) or not isinstance(content.get("stages"), dict):
        raise ValueError(f"{lock}: expected DVC's lock file with 'stages'. Run `repro run` and commit dvc.lock")
    return {(stage, out["path"]): out["md5"] for stage, entry in content["stages"].items()
            for out in entry.get("outs", [])}


def compare(expected: dict[tuple[str, str], str], found: dict[tuple[str, str], str],
            stages: set[str]) -> list[Verdict]:
    """Return a verdict for every output of the stages, in the order of their names."""
    keys = sorted(key for key in expected.keys() | found.keys() if key[0] in stages)
    return [Verdict(*key, expected.get(key), found.get(key)) for key in keys]


def _say_what_is_verified(root: Path) -> str:
    """Print what is verified and what is not; return the commit."""
    try:
        commit, changed = git(root, "rev-parse", "HEAD"), git(root, "status", "--porcelain", "--untracked-files=no")
    except ValueError as error:
        raise ValueError(f"{error}. Verification needs a git clone with at least one commit") from error
    print(f"Verifying commit {commit[:7]} of {root}: every stage runs again, without a cache.")
    if changed:
        print("The working tree has changes that are not committed; they are not part of what is verified:\n" + changed)
    return commit


def _clone(root: Path, checkout: Path) -> None:
    git(root, "clone", "--quiet", "--no-hardlinks", str(root), str(checkout))


def _check_committed(clean: Profile, profile: Profile, commit: str) -> None:
    """Check that the checkout has what a profile's run is verified by."""
    absent = [name for name in ("params.yaml", "dvc.yaml", LOCK) if not (clean.workspace / name).is_file()]
    if absent:
        raise ValueError(f"commit {commit[:7]} has no {', '.join(absent)} of {profile.workspace}, so there is nothing "
                         f"to compare with. Run `repro run --profile {profile.name}`, and commit params.yaml, "
                         f"dvc.yaml, {LOCK} and metrics/ of that folder")


def _remove_outputs(workspace: Path, outputs: dict[tuple[str, str], str]) -> None:
    """Remove what is committed of the outputs, and all metrics: dvc.lock need not know each of them."""
    inside = [workspace / path for _, path in outputs
              if (workspace / path).resolve().is_relative_to(workspace.resolve())]
    for path in [workspace / "metrics", *inside]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _run_again(runner: Runner, clean: Profile, targets: Sequence[str]) -> tuple[int, set[str]]:
    """Run the targets, or the profile and its report; return the exit code and the stages that made outputs."""
    workspace = clean.workspace
    with only_run(workspace):
        part = [] if targets else clean.results()
        folders = clean.brought().folders
        code = runner.run(workspace, [("repro", AGAIN, *targets, *part)], folders)
        stages = _stages_run(workspace)
        if part and not code:
            _bring_back_metrics(workspace)
            code = runner.run(workspace, [(*MAKE_REPORT, AGAIN)], folders)
            stages.add("report")
    return code, stages


def _bring_back_metrics(workspace: Path) -> None:
    """Bring back the committed metrics of stages that did not run: the report shows them too."""
    missing = git(workspace, "ls-files", "--deleted", "metrics").splitlines()
    if missing:
        git(workspace, "checkout", "--", *missing)


def _stages_run(workspace: Path) -> set[str]:
    """Stages that the run made outputs of: those whose outputs exist in the checkout now."""
    return {stage for stage, path in output_hashes(workspace / LOCK) if (workspace / path).exists()}


def _record(verdicts: Sequence[Verdict], commit: str, began: float, runner: Runner) -> JSON:
    """Return what was found, for the report: hashes are in dvc.lock, so only different ones are repeated."""
    different = [verdict for verdict in verdicts if not verdict.same]
    return {
        "commit": commit,
        "started": datetime.datetime.fromtimestamp(began, datetime.UTC).isoformat(timespec="seconds"),
        "wall_seconds": round(time.time() - began, 2),
        "outputs": len(verdicts),
        "stages": sorted({verdict.stage for verdict in verdicts}),
        "different": {verdict.path: {"stage": verdict.stage, "expected": verdict.expected, "found": verdict.found}
                      for verdict in different},
        "container": runner.record(),
    }


def _report(verdicts: list[Verdict]) -> int:
    for verdict in verdicts:
        print(verdict)
    different = sum(not verdict.same for verdict in verdicts)
    print(f"{len(verdicts)} outputs compared, {different} not the same")
    if not verdicts:
        print("repro verify: no output was made, so nothing was verified", file=sys.stderr)
    return 1 if different or not verdicts else 0
