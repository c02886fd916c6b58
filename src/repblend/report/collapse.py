"""Modality collapse in the embeddings of reference models, set by set (what the paper's Figures 1 and 2 are about)."""

from repblend.report.metrics import Metrics
from repblend.report.schema_wider import MEASURES
from repblend.report.table import Cell, Column, Number, Row, Table
from repblend.report.titles import title
from repblend.store import JSON

TITLES = {
    "intra_modal_similarity_img": "Similarity, images", "intra_modal_similarity_txt": "Similarity, texts",
    "concentration_ratio_img": "Concentration, images", "concentration_ratio_txt": "Concentration, texts",
    "effective_rank_img": "Rank, images", "effective_rank_txt": "Rank, texts", "modality_gap": "Modality gap"}
"""Measure -> its title; the definitions stand in the metrics files, and in the report among the definitions."""
DIGITS = {"effective_rank_img": 1, "effective_rank_txt": 1}
"""Digits after the point; three for all others."""


def measures_table(metrics: Metrics) -> Table:
    """Return every measure of collapse for every set, per budget; raises as `Metrics.embedding`."""
    rows = [_row(metrics, budget, method) for budget in metrics.grid.compared_budgets for method in metrics.methods]
    return Table("collapse-measures", "Measures of modality collapse (this project's definitions, no unit): "
                 "intra-modal similarity, concentration ratio, effective rank and modality gap, mean ± standard "
                 "deviation over the reference models whose embeddings they are taken in",
                 (Column("pairs", "Pairs"), Column("method", "Method"),
                  *(Column(name, TITLES[name], spread=True) for name in MEASURES)), tuple(rows))


def _row(metrics: Metrics, budget: int, method: str) -> Row:
    name = f"{method}-{budget}"
    found = metrics.embedding(name)
    measures = found["measures"] if found else {}
    return Row((budget, title(method), *(_number(measures, measure) for measure in MEASURES)),
               metrics.file("embed", name) if found else None)


def _number(measures: JSON, name: str) -> Cell:
    if name not in measures:
        return None
    return Number(measures[name]["mean"], measures[name]["std"], f"measures.{name}.mean", digits=DIGITS.get(name, 3))
