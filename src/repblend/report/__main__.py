"""Make the report: `python -m repblend.report`, in the workspace's folder. Takes some seconds; reads records only.

Writes `paper/tables/`, `paper/figures/` and the self-contained page `paper/report.html`.
"""

import sys

from repblend.report.sections import REPORT

if __name__ == "__main__":
    sys.exit(REPORT.main())
