"""Make the report: `python -m repblend.ufc.report`, in the workspace's folder. Takes seconds; reads records only.

Writes `paper/tables/`, `paper/figures/` and the self-contained page `paper/report.html`.
"""

import sys
from pathlib import Path

from repblend.report.page import ReportSection, ReportSpec
from repblend.ufc.report.figures import FIGURES
from repblend.ufc.report.tables import TABLES
from repblend.ufc.report.ufc_records import UfcRecords

SECTIONS = (ReportSection("How much depends on the draw of real images", ("sets",), (), ("validate",),
                          lambda records: bool(records.params.seeds)),
            ReportSection("Compensators", (), ("compensators", "integrated", "generation"), ("sets", "generate")),
            ReportSection("Decision regions", ("regions",), ("regions",), ("regions",)),
            ReportSection("What it costs", ("storage", "label-cost"), (), ("sets", "validate")))
REPORT = ReportSpec(UfcRecords.of, TABLES, FIGURES, Path("paper/ufc.ipynb"), SECTIONS)

if __name__ == "__main__":
    sys.exit(REPORT.main())
