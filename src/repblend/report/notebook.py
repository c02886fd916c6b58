"""What a report's notebook calls: tables, figures and sources of a workspace as HTML, whatever the report is about."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from IPython.display import HTML

from repblend.report.markup import figure_html, source_html, table_html
from repblend.report.table import Table
from repblend.store import JSON

ROOT_VARIABLE = "REPBLEND_ROOT"
FIGURES_VARIABLE = "REPBLEND_FIGURES"


class Traceable(Protocol):
    """The metrics of a workspace."""

    def sources(self) -> dict[str, JSON]:
        """Return the provenance of every metrics file by the file's path in the workspace."""


Metrics = TypeVar("Metrics", bound=Traceable)


@dataclass(frozen=True)
class Notebook(Generic[Metrics]):
    """One report's parts, read from the workspace that the environment names, or the folder above."""

    read: Callable[[Path], Metrics]
    tables: Mapping[str, Callable[[Metrics], Table]]

    def metrics(self) -> Metrics:
        """Return the workspace's metrics."""
        return self.read(Path(os.environ.get(ROOT_VARIABLE, "..")))

    def table(self, name: str) -> HTML:
        """Show one table."""
        return HTML(table_html(self.tables[name](self.metrics())))

    def folded(self, name: str, summary: str) -> HTML:
        """Show one table that opens on a click."""
        return HTML(f"<details><summary>{escape(summary)}</summary>{self.table(name).data}</details>")

    def figure(self, name: str, caption: str) -> HTML:
        """Show one figure that was drawn before, embedded in the page."""
        svg = (Path(os.environ.get(FIGURES_VARIABLE, "figures")) / f"{name}.svg").read_bytes()
        return HTML(figure_html(name, svg, caption))

    def sources(self) -> HTML:
        """Show, folded, where every metrics file comes from."""
        return HTML("".join(source_html(file, provenance) for file, provenance in self.metrics().sources().items())
                    or '<p class="not-run">No stage was run.</p>')
