"""Run one stage: `python -m repblend.stages STAGE [CELL]`, in the workspace's folder; see `repblend.stages.entry`."""

import sys

from repblend.stages.context import StageContext
from repblend.stages.entry import main, prepare_process

STAGES = ("prepare", "encode", "experts", "encoder-experts", "select", "distill", "evaluate", "bounds", "embed",
          "transfer")
USAGE = f"usage: python -m repblend.stages {{{','.join(STAGES)}}} [METHOD-BUDGET]"

if __name__ == "__main__":
    prepare_process()
    sys.exit(main(StageContext, STAGES, USAGE, sys.argv[1:]))
