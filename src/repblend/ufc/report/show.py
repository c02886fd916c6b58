"""What `paper/ufc.ipynb` calls. In Jupyter, open it in the folder `paper`, after the report was made once."""

from functools import cache

from IPython.display import HTML

from repblend.report.markup import definitions_html
from repblend.report.page import FirstScreen, Notebook
from repblend.ufc.records import DecisionRegions
from repblend.ufc.report import first
from repblend.ufc.report.evidence import claims
from repblend.ufc.report.tables import TABLES
from repblend.ufc.report.ufc_records import UfcRecords

_notebook = Notebook(cache(UfcRecords.of), TABLES, FirstScreen(
    claims, first.pictured, first.PICTURE_WORDS, "integrated", first.accuracy_plot))
verdicts, pictures, plot, origin = _notebook.verdicts, _notebook.pictures, _notebook.plot, _notebook.origin
table, folded, figure, sources = _notebook.table, _notebook.folded, _notebook.figure, _notebook.sources
left_out = _notebook.left_out


def definitions() -> HTML:
    """Show the definitions that the records carry, each marked as this project's own."""
    records = _notebook.records()
    found = (records.find(DecisionRegions, cell) for cell in records.cells())
    return HTML(definitions_html(next((record.definitions for record in found if record), {})))
