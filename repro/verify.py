"""`repro verify`: would I get it again? Clean checkout, no cache, every stage, every output's hash (DESIGN section 7).

The committed metrics are removed from the checkout first and every stage is forced to run, so nothing can pass by
lying there already. Those of stages that are not verified come back before the report, which shows them too.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from repblend.params import read_yaml
from repro.grids import Grid, results_of
from repro.run import REPORT, run_stoppable
from repro.workspace import dvc, find_root

LOCK = "dvc.lock"


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


def main(targets: Sequence[str], grid: Grid) -> int:
    """Verify a grid and the report (or the targets and what they need); return 0 if every output is the same."""
    try:
        root = find_root()
        _say_what_is_verified(root)
        with tempfile.TemporaryDirectory(prefix="repro-verify-") as folder:
            checkout = Path(folder) / "checkout"
            _clone(root, checkout)
            before = output_hashes(checkout / LOCK)
            part = [] if targets else results_of(grid, root)
            code = run_stoppable(dvc("repro", "--force", *targets, *part), checkout)
            stages = _stages_run(checkout)
            if not code and part:
                code = _make_report(checkout)
                stages.add("report")
            if code:
                print(f"repro verify: the pipeline stopped with exit code {code}, see above", file=sys.stderr)
                return code
            verdicts = compare(before, output_hashes(checkout / LOCK), stages)
    except ValueError as error:
        print(f"repro verify: {error}", file=sys.stderr)
        return 1
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


def _say_what_is_verified(root: Path) -> None:
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    commit = _git(root, "rev-parse", "--short", "HEAD")
    print(f"Verifying commit {commit} of {root}: every stage runs again, without a cache.")
    if changed:
        print("The working tree has changes that are not committed; they are not part of what is verified:\n" + changed)


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{root}: git {' '.join(arguments)} failed ({done.stderr.strip()}). Verification needs a git "
                         "clone with at least one commit")
    return done.stdout.rstrip()


def _clone(root: Path, checkout: Path) -> None:
    done = subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", root, checkout], capture_output=True,
                          text=True, check=False)
    if done.returncode:
        raise ValueError(f"{root}: cannot be cloned ({done.stderr.strip()})")
    shutil.rmtree(checkout / "metrics", ignore_errors=True)


def _make_report(checkout: Path) -> int:
    """Bring back the committed metrics of stages that did not run, and make the report; return the exit code."""
    missing = _git(checkout, "ls-files", "--deleted", "metrics").splitlines()
    if missing:
        _git(checkout, "checkout", "--", *missing)
    return run_stoppable([*REPORT, "--force"], checkout)


def _stages_run(checkout: Path) -> set[str]:
    """Stages that the run made outputs of: those whose outputs exist in the checkout now."""
    return {stage for stage, path in output_hashes(checkout / LOCK) if (checkout / path).exists()}


def _report(verdicts: list[Verdict]) -> int:
    for verdict in verdicts:
        print(verdict)
    different = sum(not verdict.same for verdict in verdicts)
    print(f"{len(verdicts)} outputs compared, {different} not the same")
    if not verdicts:
        print("repro verify: no output was made, so nothing was verified", file=sys.stderr)
    return 1 if different or not verdicts else 0
