"""What the unimodal report's notebook calls."""

from html import escape

from IPython.display import HTML

from repblend.report.markup import cards_html, definitions_html
from repblend.report.notebook import Notebook
from repblend.ufc_report.headline import statements as headline
from repblend.ufc_report.metrics import UfcMetrics
from repblend.ufc_report.tables import TABLES

_notebook = Notebook(UfcMetrics.of, TABLES)
table, folded, figure, sources = _notebook.table, _notebook.folded, _notebook.figure, _notebook.sources


def statements() -> HTML:
    """Show the few numbers to read first."""
    found = headline(_notebook.metrics())
    return HTML(cards_html(found) if found else '<p class="not-run">No student was trained.</p>')


def definitions() -> HTML:
    """Show the definitions that the metrics carry, each marked as this project's own."""
    metrics = _notebook.metrics()
    cells = (cell for budget in metrics.params.budgets for cell in metrics.cells(budget))
    carried = next((found["definitions"] for cell in cells if (found := metrics.regions(cell))), {})
    return HTML(definitions_html({f"{name.capitalize()} (this project's definition)": f"{escape(meaning)}."
                                  for name, meaning in sorted(carried.items())}))
