"""Make the report: `python -m repblend.report`, in the workspace's folder. Takes some seconds; reads metrics only.

Writes `paper/tables/`, `paper/figures/` and the self-contained page `paper/report.html`.
"""

import sys
from pathlib import Path

from repblend.report.figures import FIGURES
from repblend.report.making import Report
from repblend.report.metrics import Metrics
from repblend.report.tables import TABLES
from repblend.report.wording import words_for

REPORT = Report(Metrics.of, TABLES, FIGURES, Path("paper/report.ipynb"), words_for)

if __name__ == "__main__":
    sys.exit(REPORT.main())
