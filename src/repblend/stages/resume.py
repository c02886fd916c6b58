"""What a stage may resume from: work that was made from exactly the same parameters, inputs and source code."""

from collections.abc import Iterable
from pathlib import Path

from repblend.stages.context import StageContext
from repblend.stages.sources import source_hashes
from repblend.store import fingerprint, sha256


def work_fingerprint(context: StageContext, sections: Iterable[str], inputs: Iterable[Path]) -> str:
    """Identify a stage's work. Unfinished work with another fingerprint must not be resumed.

    Args:
        sections: names of the parameter sections that the stage uses.
        inputs: the files that it reads.
    """
    return fingerprint({
        "stage": context.stage, "cell": str(context.cell), "seed": context.params.seed,
        "parameters": context.parameters(sections),
        "inputs": {context.paths.shown(path): sha256(path) for path in inputs},
        "sources": source_hashes(),
    })
