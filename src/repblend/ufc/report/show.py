"""What `paper/ufc.ipynb` calls. In Jupyter, open it in the folder `paper`, after the report was made once."""

from functools import cache

from IPython.display import HTML

from repblend.report import screen
from repblend.report.markup import definitions_html, part, table_html
from repblend.report.page import Notebook
from repblend.runtime.context import repository_of
from repblend.ufc.records import DecisionRegions
from repblend.ufc.report import first
from repblend.ufc.report.tables import RULE, TABLES, claims, claims_table
from repblend.ufc.report.ufc_records import UfcRecords

_notebook = Notebook(cache(UfcRecords.of), TABLES)
table, folded, figure, sources = _notebook.table, _notebook.folded, _notebook.figure, _notebook.sources
left_out = _notebook.left_out


def verdicts() -> HTML:
    """Show which claims hold here, and, folded, every comparison behind them."""
    records = _notebook.records()
    return HTML(screen.verdicts_html(claims(records), RULE, part(
        "folded", summary="Every comparison, with deviations", content=table_html(claims_table(records)))))


def pictures() -> HTML:
    """Show images without and with a compensator."""
    return HTML(screen.pictures_html(first.pictured(_notebook.records()), first.PICTURE_WORDS, "integrated"))


def plot() -> HTML:
    """Show accuracy by budget."""
    return HTML(screen.plot_html(first.accuracy_plot(_notebook.records())))


def origin() -> HTML:
    """Show what computed the records, and how to check them."""
    records = _notebook.records()
    root = records.paths.root.resolve()
    return HTML(screen.origin_html(root, records.sources(), None if repository_of(root) == root else root.name))


def definitions() -> HTML:
    """Show the definitions that the records carry, each marked as this project's own."""
    records = _notebook.records()
    found = (records.find(DecisionRegions, cell) for cell in records.cells())
    return HTML(definitions_html(next((record.definitions for record in found if record), {})))
