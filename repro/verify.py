"""`repro verify`: would I get it again? Every stage runs in a clean checkout without a cache, and the hash of every
output is compared with dvc.lock; where bytes differ, results are compared as `repro compare` does.

Outputs that are committed are removed from the checkout first and DVC's run cache is off, so nothing can pass by lying
there already.
"""

import datetime
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from repblend.runtime.locked import LOCK, Lock
from repblend.runtime.provenance import git
from repro.compare import Comparison, Results, Verdict, verdicts_of
from repro.engines.base import ANYWHERE, Request, Runner
from repro.engines.choose import choose
from repro.fetch.checkpoints import fetch_missing
from repro.profiles import Profile, profiles_of
from repro.run_page import VERIFICATION, Different, Verification, write_run_page
from repro.workspace import MARKER, find_root, inputs_of, only_run


def main(targets: Sequence[str], name: str, request: Request = ANYWHERE) -> int:
    """Verify a profile, or the targets and what they need; of a suite each profile. Return 0 if every output is the
    same.
    """
    try:
        root = find_root()
        commit = _say_what_is_verified(root)
        profiles = profiles_of(root, name)
        return max(_verify(root, profile, targets, choose(request, root), commit) for profile in profiles)
    except (ValueError, OSError) as error:
        print(f"repro verify: {error}", file=sys.stderr)
        return 1


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


def _verify(root: Path, profile: Profile, targets: Sequence[str], runner: Runner, commit: str) -> int:
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="repro-verify-") as folder:
        checkout = Path(folder) / "checkout"
        git(root, "clone", "--quiet", "--no-hardlinks", str(root), str(checkout))
        clean = profile.in_clone(root, checkout)
        _check_committed(clean, profile, commit)
        fetch_missing(profile)
        inputs = inputs_of(root, clean.brought().folders)
        recorded = Results.in_folder(clean.workspace, commit[:7])
        expected = recorded.lock.outputs
        _remove_outputs(clean.workspace, expected)
        with only_run(clean.workspace):
            code = runner.run(clean.workspace, [("repro", "--no-run-cache", *targets)], inputs)
        if code:
            print(f"repro verify: the pipeline stopped with exit code {code}, see above", file=sys.stderr)
            return code
        found = Lock.read(clean.workspace / LOCK).outputs
        made = {output.stage for path, output in found.items() if (clean.workspace / path).exists()}
        verdicts = verdicts_of(expected, found, made)
        compared = None
        if not targets and not all(verdict.same for verdict in verdicts):
            here = Results.in_folder(clean.workspace, "here")
            students = profile.kind.num_students(clean.params())
            compared = Comparison(recorded, here, students, {}, clean.workspace).text()
    _record(verdicts, commit, began, runner).write(profile.workspace / VERIFICATION)
    write_run_page(profile.workspace)
    code = _tell(verdicts)
    if compared:
        print(f"\n{compared}")
    return code


def _check_committed(clean: Profile, profile: Profile, commit: str) -> None:
    """Check that the checkout has what a profile's run is verified by."""
    absent = [name for name in ("params.yaml", MARKER, LOCK) if not (clean.workspace / name).is_file()]
    if absent:
        raise ValueError(f"commit {commit[:7]} has no {', '.join(absent)} of {profile.workspace}, so there is nothing "
                         f"to compare with. Run `repro run --profile {profile.name}`, and commit params.yaml, "
                         f"{MARKER}, {LOCK} and metrics/ of that folder")


def _remove_outputs(workspace: Path, outputs: Iterable[str]) -> None:
    """Remove what is committed of the outputs, and all metrics: dvc.lock need not know each of them."""
    for path in (workspace / "metrics", *(workspace / output for output in outputs)):
        if path.resolve().is_relative_to(workspace.resolve()):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _record(verdicts: Sequence[Verdict], commit: str, began: float, runner: Runner) -> Verification:
    return Verification(
        commit=commit, started=datetime.datetime.fromtimestamp(began, datetime.UTC).isoformat(timespec="seconds"),
        wall_seconds=round(time.time() - began, 2), outputs=len(verdicts),
        stages=sorted({verdict.stage for verdict in verdicts}),
        different={verdict.path: Different(stage=verdict.stage, expected=verdict.expected, found=verdict.found)
                   for verdict in verdicts if not verdict.same},
        container=runner.record())


def _tell(verdicts: Sequence[Verdict]) -> int:
    """Print the verdicts; return 0 if there are some and all outputs are the same."""
    for verdict in verdicts:
        print(verdict)
    different = sum(not verdict.same for verdict in verdicts)
    print(f"{len(verdicts)} outputs compared, {different} not the same")
    if not verdicts:
        print("repro verify: no output was made, so nothing was verified", file=sys.stderr)
    return 1 if different or not verdicts else 0
