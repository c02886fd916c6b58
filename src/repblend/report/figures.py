"""Every figure of the report, each drawn from stored metrics alone."""

from collections.abc import Callable
from pathlib import Path

from repblend.report.ablation import ablation
from repblend.report.bars import mean_recall
from repblend.report.curves import collapse, learning_curves
from repblend.report.metrics import Metrics
from repblend.report.noise import noise
from repblend.report.pairs import similarity, specimens
from repblend.report.published_curves import published_similarity
from repblend.report.sensitivity import sensitivity
from repblend.report.spheres import spheres

FIGURES: dict[str, Callable[[Metrics, Path], None]] = {
    "mean-recall": mean_recall, "learning-curves": learning_curves, "specimens": specimens, "similarity": similarity,
    "collapse": collapse, "ablation": ablation, "sensitivity": sensitivity, "noise": noise, "spheres": spheres,
    "published-similarity": published_similarity}
"""Every figure by its file name."""
