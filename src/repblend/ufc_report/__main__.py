"""Make the report: `python -m repblend.ufc_report`, in the workspace's folder. Takes seconds; reads metrics only."""

import sys
from pathlib import Path

from repblend.report.making import Report
from repblend.ufc_report.figures import FIGURES
from repblend.ufc_report.metrics import UfcMetrics
from repblend.ufc_report.tables import TABLES

REPORT = Report(UfcMetrics.of, TABLES, FIGURES, Path("paper/ufc.ipynb"))

if __name__ == "__main__":
    sys.exit(REPORT.main())
