"""`repro report`: regenerate every table and figure from the stored metrics, without running any other stage."""

import shlex
import subprocess
import sys
from pathlib import Path

from repblend.params import read_yaml
from repro.profiles import Profile, profiles_of
from repro.run_page import write_run_page
from repro.workspace import MAKE_REPORT, MARKER, dvc, find_root, python, workspace_environment


def main(name: str) -> int:
    """Regenerate the report of a profile, or of each of a suite; return the exit code."""
    try:
        return next((code for profile in profiles_of(find_root(), name) if (code := _report(profile))), 0)
    except ValueError as error:
        print(f"repro report: {error}", file=sys.stderr)
        return 1


def report_command(workspace: Path) -> list[str]:
    """Return what makes the report: DVC, or, where it would miss metrics of stages that were not run, its own command.

    Raises:
        ValueError: `dvc.yaml` cannot be read.
    """
    stage = read_yaml(workspace / MARKER)["stages"]["report"]
    if all((workspace / path).exists() for path in stage["deps"]):
        return dvc(*MAKE_REPORT)
    print("Some stages were never run: the report says so where it would show them, and dvc.lock does not know of it.",
          flush=True)
    return python(*shlex.split(stage["cmd"])[1:])


def _report(profile: Profile) -> int:
    folder = profile.workspace
    code = subprocess.run(report_command(folder), cwd=folder, env=workspace_environment(folder), check=False).returncode
    if code == 0:
        write_run_page(folder)
        print(f"Report: {folder / profile.kind.report}")
    return code
