"""What the report's notebook calls. In Jupyter, open it in the folder `paper`, after the report was made once."""

from collections.abc import Callable
from html import escape

from IPython.display import HTML

from repblend.report import headline
from repblend.report.markup import cards_html, definitions_html
from repblend.report.metrics import Metrics
from repblend.report.notebook import Notebook
from repblend.report.tables import TABLES
from repblend.store import JSON

_notebook = Notebook(Metrics.of, TABLES)
_metrics, table, folded, figure, sources = (_notebook.metrics, _notebook.table, _notebook.folded, _notebook.figure,
                                            _notebook.sources)


def statements() -> HTML:
    """Show the few numbers to read first."""
    return HTML(cards_html(headline.statements(_metrics())))


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
