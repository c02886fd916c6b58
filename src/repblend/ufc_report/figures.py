"""Every figure of the unimodal report, each drawn from stored metrics alone."""

from collections.abc import Callable
from pathlib import Path

from repblend.ufc_report.accuracy import accuracy, generation
from repblend.ufc_report.metrics import UfcMetrics
from repblend.ufc_report.pictures import compensators, integrated
from repblend.ufc_report.regions import regions

FIGURES: dict[str, Callable[[UfcMetrics, Path], None]] = {
    "accuracy": accuracy, "generation": generation, "compensators": compensators, "integrated": integrated,
    "regions": regions}
"""Every figure by its file name; each draws into a folder."""
