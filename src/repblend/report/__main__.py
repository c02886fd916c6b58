"""Make the report: `python -m repblend.report`, in the workspace's folder. Takes some seconds; reads metrics only.

Writes `paper/tables/`, `paper/figures/` and the self-contained page `paper/report.html`.
"""

import logging
import sys
from pathlib import Path

from repblend.progress import progress
from repblend.report.figures import FIGURES
from repblend.report.metrics import Metrics
from repblend.report.page import render
from repblend.report.table import write_table
from repblend.report.tables import all_tables
from repblend.stages.guard import stop_with_the_runner
from repblend.store import atomic_path, write_bytes

NOTEBOOK = Path("paper/report.ipynb")


def make(root: Path) -> None:
    """Write all tables, all figures and the page.

    Raises:
        ValueError: `params.yaml` or a metrics file is not as expected.
    """
    metrics, paper = Metrics.of(root), root / "paper"
    with atomic_path(paper / "tables") as tables:
        for table in all_tables(metrics):
            write_table(tables, table)
    with atomic_path(paper / "figures") as figures:
        for draw in progress(FIGURES.values(), "draw figures", "figure"):
            draw(metrics, figures)
    write_bytes(paper / "report.html", render(metrics.repository / NOTEBOOK, root, paper / "figures").encode())


def main() -> int:
    """Make the report of the current folder; return the exit code."""
    stop_with_the_runner()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("repblend").setLevel(logging.INFO)
    try:
        make(Path.cwd())
    except (ValueError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
