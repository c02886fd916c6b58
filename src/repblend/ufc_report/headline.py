"""The few numbers to read first."""

from repblend.report.headline import Statement
from repblend.report.table import Number
from repblend.stages.context import Cell
from repblend.ufc_report.metrics import UfcMetrics
from repblend.ufc_report.titles import title
from repblend.ufc_stages.context import StudentCell

SHOWN = (("ufc", "static"), ("ufc", "dynamic"), ("random", "static"), ("random", "hard"))


def statements(metrics: UfcMetrics) -> list[Statement]:
    """Return what was measured at the smallest budget, where sets differ most."""
    budget, student = min(metrics.params.budgets), metrics.params.validation.students[0]
    found = [(cell, metrics.validated(cell)) for name, labels in SHOWN
             for cell in [StudentCell(Cell(name, budget), labels, student)]]
    return [Statement(f"{Number(content['mean']['best'], content['std']['best'], 'mean.best')} %",
                      f"{title(cell)}, {budget} images per class") for cell, content in found if content]
