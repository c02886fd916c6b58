"""`repro report`: regenerate every table and figure from the stored metrics, without running any other stage."""

import subprocess
import sys

from repro.run_page import write_run_page
from repro.workspace import MAKE_REPORT, dvc, find_root, workspace_environment


def main() -> int:
    """Regenerate the report; return the exit code."""
    try:
        root = find_root()
    except ValueError as error:
        print(f"repro report: {error}", file=sys.stderr)
        return 1
    code = subprocess.run(dvc(*MAKE_REPORT), cwd=root, env=workspace_environment(root), check=False).returncode
    if code == 0:
        write_run_page(root)
        print(f"Report: {root / 'paper' / 'report.html'}")
    return code
