"""`repro run`: bring a workspace's pipeline up to date, then print its results and where the report is. With it, what
needs a workspace that has run: `repro report` and `repro export`; and `repro parity`.
"""

import contextlib
import datetime
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from repblend.params.reading import read_yaml
from repblend.runtime.locked import check_fit, left_out, unfit_records
from repblend.runtime.provenance import commit_of, read_runs
from repblend.store import repository_of
from repro.artifacts.look import make_dvc_look
from repro.compare import comparison
from repro.doctor import check_gpu, shortages
from repro.engines.base import ANYWHERE, Engine, Gpus, On, Request, Runner
from repro.engines.choose import choose
from repro.engines.local import LocalRunner, run_stoppable
from repro.fetch.checkpoints import fetch_missing
from repro.pipeline import KINDS, MULTIMODAL
from repro.profiles import Profile, profile_of, profiles_of, workspace_of
from repro.run_page import CONTAINER, PAGE, write_run_page
from repro.workspace import MARKER, dvc, environment, find_root, inputs_of, missing, only_run, workspace_environment

Format = Literal["folder", "official"]
"""A folder with a data card that `datasets` opens, or the files of the official release."""
EXPERTS = ("experts", "encoder-experts")


def main(targets: Sequence[str], name: str, request: Request = ANYWHERE, on: On | None = None,
         is_mixed: bool = False) -> int:
    """Run the targets, or all of the profile if there are none; of a suite each profile after the one before. Return
    the exit code of the first that stops, or 0.

    Args:
        on: where to run a job per stage instead; then profiles of a suite run side by side.
        is_mixed: take results of several kinds of hardware, each of which says its own.
    """
    try:
        root = find_root()
        profiles = profiles_of(root, name)
        if absent := [found for profile in profiles if (found := absent_inputs(profile))]:
            raise ValueError("\n".join(absent))  # of all before the first runs, which may take days
        for line in shortages(root):
            print(f"This machine may have too little. {line[0].upper()}{line[1:]}", flush=True)
        if on is not None:
            return _run_by_jobs(profiles, targets, on, is_mixed, request)
        return next((code for profile in profiles if (code := _run(profile, targets, _chosen(profile, request)))), 0)
    except (ValueError, OSError) as error:
        print(f"repro run: {error}", file=sys.stderr)
        return 1


def _chosen(profile: Profile, request: Request) -> Runner:
    """Return where to run; raises `ValueError` as `choose`, or at once if there is not the GPU that stages want."""
    runner = choose(request, repository_of(profile.workspace))
    gpu = check_gpu(profile.params().compute.device)
    if isinstance(runner, LocalRunner) and gpu.status != "ok":
        raise ValueError(gpu.detail)
    return runner


def _run(profile: Profile, targets: Sequence[str], runner: Runner, tell: bool = True) -> int:
    workspace, began = profile.workspace, time.time()
    with only_run(workspace):
        fetch_missing(profile)
        for wrong in make_dvc_look(workspace):
            print(f"{wrong}. It is made again if this run needs it.", flush=True)
        inputs = inputs_of(repository_of(workspace), profile.brought().folders)
        code = runner.run(workspace, [("repro", *targets)], inputs)
        wrong_after = [] if code else make_dvc_look(workspace)
        if (record := runner.record()) is not None and not code:
            commit, dirty = commit_of(workspace)
            record.model_copy(update={"commit": commit, "dirty": dirty}).write(workspace / CONTAINER)
        if record is not None or not (workspace / PAGE).exists():
            write_run_page(workspace)
    if code:
        print(f"\nrepro run: stopped (exit code {code}). What was finished is kept: run the same command to go on. "
              f"Logs are in {workspace / 'logs'}", file=sys.stderr)
        return code
    if wrong_after:
        raise ValueError("\n".join([*wrong_after, "Something else wrote this. Run the same command again to make it "
                                    "anew"]))
    if tell:
        print("\n" + _closing_words(profile, began))
    return 0


def _run_by_jobs(profiles: Sequence[Profile], targets: Sequence[str], on: On, is_mixed: bool, request: Request) -> int:
    from repro.cluster.head import Way, run_on  # needs what one machine does not

    began, workspaces = time.time(), [profile.workspace for profile in profiles]
    if request.gpus is not Gpus.AUTO or request.memory_gib is not None:
        raise ValueError("--gpus and --memory are for one container. With --on every job has one GPU, and cluster.yaml "
                         "says how much memory (memory_gib)")
    with only_run(*workspaces):
        for profile in profiles:
            fetch_missing(profile)
            for wrong in make_dvc_look(profile.workspace):
                print(f"{wrong}. It is made again if this run needs it.", flush=True)
        try:
            succeeded = run_on(Way(on, is_mixed, request.engine is Engine.DOCKER), profiles, targets)
        except KeyboardInterrupt:
            print("\nStopped. Jobs that were submitted go on: run the same command to take their results, `repro jobs` "
                  "to see them, `repro jobs --cancel` to end them", file=sys.stderr)
            return 128 + signal.SIGINT
        finally:
            for workspace in workspaces:
                write_run_page(workspace)
    if not succeeded:
        print("\nrepro run: some stages failed, see above. What was finished is kept: run the same command to go on",
              file=sys.stderr)
        return 1
    for profile in profiles:
        print("\n" + _closing_words(profile, began))
    return 0


def absent_inputs(profile: Profile) -> str | None:
    """Say which of the user's files are not there: DVC would say no more than that an input is missing."""
    root, brought, data = repository_of(profile.workspace), profile.brought(), profile.params().data
    files = [*(file for files in brought.files.values() for file in files), *brought.folders]
    absent = missing(root, dict.fromkeys(files))
    outermost = [path for path in absent if not any(other in path.parents for other in absent)]
    if not outermost:
        return None
    from repro.fetch.datasets import how_to_bring  # slow to import

    words = (f"profile {profile.name}: no such file: {', '.join(map(str, outermost))}. Put it there, or say in "
             f"{profile.workspace / 'params.yaml'} where it lies")
    folder: str | None = getattr(data, "folder", None)
    if folder is not None and any(path.is_relative_to(root / folder) for path in outermost):
        return f"{words}. {how_to_bring(data.name, folder)}"
    return words


def _closing_words(profile: Profile, began: float) -> str:
    """Return results (beside the recorded ones, where there are any), and times and memory of this run alone."""
    workspace = profile.workspace
    compared = None
    with contextlib.suppress(ValueError):  # no git, or no commit yet
        compared = comparison(profile)
    lines = [compared.text() if compared else profile.kind.results(workspace), ""]
    runs = [run for run in read_runs(workspace / "runs.jsonl")
            if datetime.datetime.fromisoformat(run.started).timestamp() >= int(began)]
    lines.append(f"This run took {time.time() - began:.0f} s.")
    if runs:
        largest = max(runs, key=lambda run: run.peak_memory_mib)
        lines[-1] += (f" {len(runs)} stages ran, {sum(run.wall_seconds for run in runs):.0f} s in all, and at most "
                      f"{largest.peak_memory_mib:.0f} MiB of memory, in {largest.stage}.")
    else:
        lines[-1] += " No stage had to run again."
    report = workspace / profile.kind.report
    lines.append(f"Report: {report}" if report.exists() else "`repro report` makes the report of what there is.")
    return "\n".join(lines)


def report_main(name: str) -> int:
    """`repro report`: make the report of a profile, or of each of a suite, from its records, and run no other stage.
    Return the exit code.
    """
    try:
        return next((code for profile in profiles_of(find_root(), name) if (code := _report(profile))), 0)
    except (ValueError, OSError) as error:
        print(f"repro report: {error}", file=sys.stderr)
        return 1


def _report(profile: Profile) -> int:
    folder = profile.workspace
    with only_run(folder):
        unfit = unfit_records(folder, profile.kind.pipeline)
        code = run_stoppable(report_command(folder, bool(unfit)), folder)
        if code == 0:
            print(left_out(unfit))
            write_run_page(folder)
    if code == 0:
        print(f"Report: {folder / profile.kind.report}")
    return code


def report_command(workspace: Path, incomplete: bool) -> list[str]:
    """Return what makes the report: DVC, or, where records are missing or left out (`incomplete`), its own command: DVC
    would ask for them, or take the report for one of all records.

    Raises:
        ValueError: `dvc.yaml` cannot be read.
    """
    stage = read_yaml(workspace / MARKER)["stages"]["report"]
    if not incomplete and all((workspace / path).exists() for path in stage["deps"]):
        return dvc("repro", "--single-item", "report")
    print("Some results are not here, or not of these parameters: the report names what it leaves out for that, and "
          "dvc.lock does not list it.", flush=True)
    return [sys.executable, *shlex.split(stage["cmd"])[1:]]


CAPTIONS = Path("data/prepared")
"""What an exported folder's nearest captions come from; pulling does not bring it with the sets."""


def export_main(what: str, target: str, form: Format, name: str) -> int:
    """`repro export`: write a set or experts as files for others, in a process of its own that imports torch. Return
    the exit code.
    """
    try:
        workspace = workspace_of(find_root(), name)
        sets = workspace / "sets"
        if what not in EXPERTS and not (sets / f"{what}.safetensors").is_file():
            here = sorted(path.stem for path in sets.glob("*.safetensors"))
            raise ValueError(f"{sets / what}.safetensors: no such file; expected a set of pairs, one of "
                             f"{', '.join(here) or 'none yet'}. `repro run --profile {name}` makes the sets, and "
                             f"`repro pull distilled --profile {name}` brings those that were published")
        check_fit(workspace, KINDS[MULTIMODAL].pipeline, [
            workspace / what if what in EXPERTS else sets / f"{what}.safetensors"])  # before anything is computed
    except ValueError as error:
        print(f"repro export: {error}", file=sys.stderr)
        return 1
    if form == "folder" and not (workspace / CAPTIONS).is_dir():
        print("The captions that a release names are not here: they are made first.", flush=True)
        try:
            profile = profile_of(find_root(), name)
            code = _run(profile, ["prepare"], _chosen(profile, ANYWHERE), tell=False)
        except (ValueError, OSError) as error:
            print(f"repro export: {error}", file=sys.stderr)
            return 1
        if code:
            return code
    command = [sys.executable, "-m", "repblend.release", form, what, str(Path(target).absolute())]
    return subprocess.run(command, cwd=workspace, env=workspace_environment(workspace), check=False).returncode


def parity_main(files: Sequence[str]) -> int:
    """`repro parity`: replay recordings of the official implementation, in a process of its own that imports torch.
    Return 0 if every array agrees, 1 if one does not, 2 if a file cannot be replayed.
    """
    command = [sys.executable, "-m", "repblend.parity", *files]
    return subprocess.run(command, env=environment(), check=False).returncode
