"""What the report's notebook calls: it shows the tables and figures that were made before it ran."""

import base64
import html
import json
import os
from pathlib import Path

from IPython.display import HTML

from repblend.report.metrics import Metrics
from repblend.report.tables import all_tables

ROOT_VARIABLE = "REPBLEND_ROOT"
FIGURES_VARIABLE = "REPBLEND_FIGURES"


def _metrics() -> Metrics:
    return Metrics.of(Path(os.environ[ROOT_VARIABLE]))


def table(name: str) -> HTML:
    """Show one table."""
    return HTML(next(found for found in all_tables(_metrics()) if found.name == name).to_html())


def figure(name: str, caption: str) -> HTML:
    """Show one figure, embedded in the page."""
    svg = (Path(os.environ[FIGURES_VARIABLE]) / f"{name}.svg").read_bytes()
    data = base64.b64encode(svg).decode("ascii")
    return HTML(f'<figure><img alt="{html.escape(caption)}" src="data:image/svg+xml;base64,{data}">'
                f"<figcaption>{html.escape(caption)}</figcaption></figure>")


def definitions() -> HTML:
    """Show the definitions that the metrics carry, each marked as this project's own."""
    metrics = _metrics()
    found = (metrics.specimens(f"{method}-{budget}") for method in metrics.grid.distilled
             for budget in metrics.grid.budgets)
    carried = next((content["definitions"] for content in found if content), {})
    rows = "".join(f"<dt>{html.escape(name.replace('_', ' '))} (this project's definition)</dt><dd>{html.escape(text)}"
                   "</dd>" for name, text in sorted(carried.items()))
    return HTML(f"<dl>{rows}</dl>")


def provenance(name: str) -> HTML:
    """Show, folded, everything that decided the numbers of one evaluation."""
    content = _metrics().evaluation(name)
    text = json.dumps(content["provenance"], indent=1, sort_keys=True, ensure_ascii=False) if content else "not run"
    return HTML(f"<details><summary>Provenance of {html.escape(name)}</summary><pre>{html.escape(text)}</pre></details>")
