"""Run one stage: `python -m repblend.ufc.stages STAGE [CELL]`, in the workspace's folder; see `runtime.harness`."""

import sys

from repblend.runtime.harness import main, prepare_process
from repblend.ufc.stages.pipeline import UfcContext

USAGE = f"usage: python -m repblend.ufc.stages {{{','.join(UfcContext.pipeline.names)}}} " \
        "[ARCHITECTURE | SET-BUDGET | SET+LABELS+STUDENT-BUDGET]"

if __name__ == "__main__":
    prepare_process()
    sys.exit(main(UfcContext, USAGE, sys.argv[1:]))
