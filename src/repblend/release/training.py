"""Training on a released set: students on it, scored on a workspace's splits as stage `evaluate` does."""

from pathlib import Path

from repblend.evaluation.protocol import Scores
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import read_params
from repblend.release.folder import SET
from repblend.stages.context import Cell, Paths
from repblend.stages.evaluate import evaluate_cell


def evaluate_release(folder: Path | str, workspace: Path | str) -> Scores:
    """Train students on a released set and score them.

    Args:
        folder: the released set.
        workspace: a clone whose `params.yaml` says how students train, and that has the features of the same data set
            (`repro run encode`).

    Raises:
        ValueError: the folder is no released set, or the workspace lacks a file.
    """
    paths = Paths(Path(workspace))
    synthetic = SyntheticSet.read(Path(folder) / SET)
    return evaluate_cell(Cell(**synthetic.metadata["cell"]), synthetic, read_params(paths.params), paths)
