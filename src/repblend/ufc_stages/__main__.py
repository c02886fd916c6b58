"""Run one stage: `python -m repblend.ufc_stages STAGE [CELL]`, in the workspace's folder (`repblend.stages.entry`)."""

import sys

from repblend.stages.entry import main, prepare_process
from repblend.ufc_stages.context import UfcContext

STAGES = ("prepare", "initial", "teacher", "generate", "integrate", "select", "label", "validate", "regions")
USAGE = f"usage: python -m repblend.ufc_stages {{{','.join(STAGES)}}} " \
        "[ARCHITECTURE | SET-BUDGET | SET+LABELS+STUDENT-BUDGET]"

if __name__ == "__main__":
    prepare_process()
    sys.exit(main(UfcContext, STAGES, USAGE, sys.argv[1:]))
