"""What the report's notebook calls. In Jupyter, open it in the folder `paper`, after the report was made once."""

import os
from collections.abc import Callable
from html import escape
from pathlib import Path

from IPython.display import HTML

from repblend.report import headline
from repblend.report.markup import cards_html, definitions_html, figure_html, source_html, table_html
from repblend.report.metrics import Metrics
from repblend.report.tables import TABLES
from repblend.store import JSON

ROOT_VARIABLE = "REPBLEND_ROOT"
FIGURES_VARIABLE = "REPBLEND_FIGURES"


def _metrics() -> Metrics:
    return Metrics.of(Path(os.environ.get(ROOT_VARIABLE, "..")))


def statements() -> HTML:
    """Show the few numbers to read first."""
    return HTML(cards_html(headline.statements(_metrics())))


def table(name: str) -> HTML:
    """Show one table."""
    return HTML(table_html(TABLES[name](_metrics())))


def folded(name: str, summary: str) -> HTML:
    """Show one table that opens on a click."""
    return HTML(f"<details><summary>{escape(summary)}</summary>{table(name).data}</details>")


def figure(name: str, caption: str) -> HTML:
    """Show one figure that was drawn before, embedded in the page."""
    svg = (Path(os.environ.get(FIGURES_VARIABLE, "figures")) / f"{name}.svg").read_bytes()
    return HTML(figure_html(name, svg, caption))


def definitions() -> HTML:
    """Show the definitions that the metrics carry, each marked as this project's own."""
    metrics = _metrics()
    carried = _carried(metrics, metrics.specimens)
    for name, meaning in _carried(metrics, metrics.embedding).items():
        carried[name if carried.get(name, meaning) == meaning else f"{name}, in reference models"] = meaning
    return HTML(definitions_html({f"{name.replace('_', ' ').capitalize()} (this project's definition)":
                                  f"{escape(carried[name])}." for name in sorted(carried)}))


def _carried(metrics: Metrics, read: Callable[[str], JSON | None]) -> dict[str, str]:
    """The definitions in the files of every cell, of which all carry the same."""
    found = (read(f"{method}-{budget}") for method in metrics.methods for budget in metrics.grid.budgets)
    return dict(next((content["definitions"] for content in found if content), {}))


def sources() -> HTML:
    """Show, folded, where every metrics file comes from."""
    return HTML("".join(source_html(file, provenance) for file, provenance in _metrics().sources().items())
                or '<p class="not-run">No stage was run.</p>')
