"""Run one stage: `python -m repblend.stages STAGE [CELL]`, in the workspace's folder; see `runtime.harness`."""

import sys

from repblend.runtime.harness import main, prepare_process
from repblend.stages.pipeline import Context

USAGE = f"usage: python -m repblend.stages {{{','.join(Context.pipeline.names)}}} [METHOD-BUDGET] [--only NUMBER]"

if __name__ == "__main__":
    prepare_process()
    sys.exit(main(Context, USAGE, sys.argv[1:]))
