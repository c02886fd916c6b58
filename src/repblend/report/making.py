"""Making a report: tables, figures and the page of a workspace, from its metrics, whatever the report is about."""

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from repblend.progress import progress
from repblend.report.page import render
from repblend.report.table import Table, write_table
from repblend.stages.context import repository_of
from repblend.stages.guard import stop_with_the_runner
from repblend.store import atomic_path, write_bytes

Metrics = TypeVar("Metrics")


@dataclass(frozen=True)
class Report(Generic[Metrics]):
    """What a report consists of."""

    read: Callable[[Path], Metrics]
    """From a workspace to its metrics."""
    tables: Mapping[str, Callable[[Metrics], Table]]
    figures: Mapping[str, Callable[[Metrics, Path], None]]
    """Name -> what draws the figure into a folder."""
    notebook: Path
    """The page's source, in the clone."""
    words: Callable[[Metrics], Mapping[str, str]] = field(default=lambda metrics: {})
    """Passages of the notebook, as regular expressions -> what to say in their place of these metrics."""

    def make(self, root: Path) -> None:
        """Write all tables, all figures and the page of the workspace at `root` into its folder `paper`.

        Raises:
            ValueError: `params.yaml` or a metrics file is not as expected.
        """
        metrics, paper = self.read(root), root / "paper"
        with atomic_path(paper / "tables") as tables:
            for build in self.tables.values():
                write_table(tables, build(metrics))
        with atomic_path(paper / "figures") as figures:
            for draw in progress(self.figures.values(), "draw figures", "figure"):
                draw(metrics, figures)
        page = render(repository_of(root) / self.notebook, root, paper / "figures", self.words(metrics))
        write_bytes(paper / "report.html", page.encode())

    def main(self) -> int:
        """Make the report of the current folder; return the exit code."""
        stop_with_the_runner()
        logging.basicConfig(format="%(message)s")
        logging.getLogger("repblend").setLevel(logging.INFO)
        try:
            self.make(Path.cwd())
        except (ValueError, OSError) as error:
            print(f"report: {error}", file=sys.stderr)
            return 1
        return 0
