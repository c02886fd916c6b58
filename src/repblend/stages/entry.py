"""Running one stage of a pipeline from its command line: `python -m PACKAGE STAGE [CELL]`, in the workspace's folder.

`dvc.yaml` calls this; nobody has to. It checks the parameters before anything slow, lets no second process write the
same outputs, stops when the run that started it is gone, and leaves a run record beside the metrics.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from repblend.stages.context import StageContext
from repblend.stages.sources import check_sources_are_the_workspaces, refuse_edits, source_hashes


def main(pipeline: type[StageContext], stages: Sequence[str], usage: str, arguments: Sequence[str]) -> int:
    """Run the stage that the arguments name; return the exit code.

    Args:
        pipeline: whose stages they are.
        stages: names of all stages.
        usage: what is printed after a wrong call.
        arguments: the stage's name and, for a stage that has cells, the cell's.
    """
    if len(arguments) not in (1, 2) or arguments[0] not in stages:
        print(usage, file=sys.stderr)
        return 2
    try:
        check_sources_are_the_workspaces(Path.cwd())
        _run(pipeline.of(Path.cwd(), *arguments, *[None] * (2 - len(arguments))))
    except (ValueError, OSError) as error:
        print(f"{' '.join(arguments)}: {error}", file=sys.stderr)
        return 1
    return 0


def prepare_process() -> None:
    """Set what libraries read when they are first imported; call this first of all."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Read when torch is first imported. Threads wait for one another thousands of times a second: asleep, they make a
    # distillation a third slower; spinning long, seven times slower as soon as another process wants their core. A
    # short spin costs little either way.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # PyTorch warns of its own use of it, in every stage that takes forward derivatives.
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")


def _run(context: StageContext) -> None:
    from repblend.stages.harness import running  # after the parameters are known to be right: imports torch

    with running(context):
        before = source_hashes()
        stage = importlib.import_module(f"{context.package}.{context.stage.replace('-', '_')}")
        stage.run(context)
        refuse_edits(context, stage.SECTIONS, before)
