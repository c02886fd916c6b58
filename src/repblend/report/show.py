"""What `paper/report.ipynb` calls. In Jupyter, open it in the folder `paper`, after the report was made once.

Passages that depend on the run are macros of `template/words.html.j2`, which get what this run is.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from IPython.display import HTML

from repblend.report import first
from repblend.report.blending import blending_words
from repblend.report.evidence import claims
from repblend.report.grid_records import GridRecords
from repblend.report.markup import definitions_html, part
from repblend.report.page import FirstScreen, Notebook
from repblend.report.sections import TABLES, has_lors
from repblend.report.studies import ablated
from repblend.titles import EMBEDDED, data_title, title

_notebook = Notebook(cache(GridRecords.of), TABLES, FirstScreen(
    claims, first.pictured, first.PAIR_WORDS, "specimens", first.recall_plot))
verdicts, pictures, plot, origin = _notebook.verdicts, _notebook.pictures, _notebook.plot, _notebook.origin
table, folded, figure, sources = _notebook.table, _notebook.folded, _notebook.figure, _notebook.sources
tabs, left_out = _notebook.tabs, _notebook.left_out


def words(passage: str) -> HTML:
    """Show a passage that depends on the run: a macro of `template/words.html.j2`."""
    records = _notebook.records()
    dataset, encoded = records.dataset(), records.encoded()
    distilled = [records.distillation(f"{method}-{budget}") for method in records.learned
                 for budget in records.grid.budgets]
    run = {
        "embedded": dataset in (None, EMBEDDED),
        "data": None if dataset is None else data_title(dataset),
        "encoders": (encoded.image_encoder, encoded.text_encoder) if encoded else None,
        "encoder_methods": [title(method) for method in records.grid.encoder_distilled],
        "encoder_coresets": [title(method) for method in records.grid.encoder_coresets],
        "ablated": ablated(records),
        "blending": blending_words(records) if records.grid.regimes else None,
        "chosen_by": sorted({record.provenance.parameters.get("distill", {}).get("choose", "best-validation")
                             for record in distilled if record and record.course}),
        "has_lors": has_lors(records),
        "is_cc3m": records.is_of("cc3m"),
        "profile": _notebook.profile,
    }
    return HTML(part(passage, "words.html.j2", run=run))


def definitions() -> HTML:
    """Show the definitions that the records carry, each marked as this project's own."""
    records = _notebook.records()
    carried = _carried(records, records.distillation)
    for name, meaning in _carried(records, records.embedding).items():
        carried[name if carried.get(name, meaning) == meaning else f"{name}, in reference models"] = meaning
    return HTML(definitions_html(carried))


def _carried(records: GridRecords, read: Callable[[str], Any]) -> dict[str, str]:
    """The definitions in the records of every cell, of which all carry the same."""
    found = (read(f"{method}-{budget}") for method in records.methods for budget in records.grid.budgets)
    return dict(next((record.definitions for record in found if record), {}))
