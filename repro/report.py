"""`repro report`: regenerate every table and figure from the stored metrics, without running any other stage."""

import subprocess
import sys

from repro.profiles import Profile, profiles_of
from repro.run_page import write_run_page
from repro.workspace import MAKE_REPORT, dvc, find_root, workspace_environment


def main(name: str) -> int:
    """Regenerate the report of a profile, or of each of a suite; return the exit code."""
    try:
        return next((code for profile in profiles_of(find_root(), name) if (code := _report(profile))), 0)
    except ValueError as error:
        print(f"repro report: {error}", file=sys.stderr)
        return 1


def _report(profile: Profile) -> int:
    folder = profile.workspace
    code = subprocess.run(dvc(*MAKE_REPORT), cwd=folder, env=workspace_environment(folder), check=False).returncode
    if code == 0:
        write_run_page(folder)
        print(f"Report: {folder / profile.kind.report}")
    return code
