"""Every figure of the report, each drawn from stored metrics alone."""

from collections.abc import Callable
from pathlib import Path

from repblend.report.bars import mean_recall
from repblend.report.curves import collapse, learning_curves
from repblend.report.metrics import Metrics
from repblend.report.pairs import similarity, specimens

FIGURES: dict[str, Callable[[Metrics, Path], None]] = {
    "mean-recall": mean_recall, "learning-curves": learning_curves, "specimens": specimens, "similarity": similarity,
    "collapse": collapse}
"""Every figure by its file name."""
