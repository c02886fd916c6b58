"""Run one stage: `python -m repblend.stages STAGE [CELL]`, in the workspace's folder.

`dvc.yaml` calls this; nobody has to. It checks the parameters before anything slow, lets no second process write the
same outputs, stops when the run that started it is gone, and leaves a run record beside the metrics.
"""

import importlib
import os
import sys
import warnings
from pathlib import Path

from repblend.params import read_params
from repblend.stages.context import Cell, Paths, StageContext
from repblend.stages.sources import check_sources_are_the_workspaces, refuse_edits, source_hashes

STAGES = ("prepare", "encode", "experts", "encoder-experts", "select", "distill", "evaluate", "bounds", "embed",
          "transfer")
USAGE = f"usage: python -m repblend.stages {{{','.join(STAGES)}}} [METHOD-BUDGET]"


def main(arguments: list[str]) -> int:
    """Run the stage that the arguments name; return the exit code."""
    if len(arguments) not in (1, 2) or arguments[0] not in STAGES:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        paths = Paths(Path.cwd())
        check_sources_are_the_workspaces(paths.root)
        cell = Cell.parse(arguments[1]) if len(arguments) == 2 else None
        context = StageContext(arguments[0], cell, read_params(paths.params), paths)
        _run(context)
    except (ValueError, OSError) as error:
        print(f"{' '.join(arguments)}: {error}", file=sys.stderr)
        return 1
    return 0


def _run(context: StageContext) -> None:
    from repblend.stages.harness import running  # after the parameters are known to be right: imports torch

    with running(context):
        before = source_hashes()
        stage = importlib.import_module(f"repblend.stages.{context.stage.replace('-', '_')}")
        stage.run(context)
        refuse_edits(context, stage.SECTIONS, before)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Read when torch is first imported. Threads wait for one another thousands of times a second: asleep, they make a
    # distillation a third slower; spinning long, seven times slower as soon as another process wants their core. A
    # short spin costs little either way.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # PyTorch warns of its own use of it, in every stage that takes forward derivatives.
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
    sys.exit(main(sys.argv[1:]))
