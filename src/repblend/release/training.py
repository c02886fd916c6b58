"""Training on a released set: students on it, scored on a workspace's splits as stage `evaluate` does."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from repblend.evaluation.protocol import Scores
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Compute, read_params
from repblend.release.folder import SET
from repblend.stages.context import Cell, Paths
from repblend.stages.evaluate import evaluate_cell
from repblend.stages.harness import compute_deterministically, prepare_gpu


def evaluate_release(folder: Path | str, workspace: Path | str) -> Scores:
    """Train students on a released set and score them; in the workspace it comes from, to the recorded numbers.

    Meanwhile PyTorch computes as in stages: with the threads that the parameters name, by deterministic algorithms.

    Args:
        folder: the released set.
        workspace: a clone whose `params.yaml` says how students train, and that has the features of the same data set
            (`repro run encode`).

    Raises:
        ValueError: the folder is no released set, the workspace lacks a file, or there is no GPU where it asks for one.
    """
    paths = Paths(Path(workspace))
    params, synthetic = read_params(paths.params), SyntheticSet.read(Path(folder) / SET)
    with _as_stages_compute(params.compute):
        return evaluate_cell(Cell(**synthetic.metadata["cell"]), synthetic, params, paths)


@contextlib.contextmanager
def _as_stages_compute(compute: Compute) -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        compute_deterministically(compute.threads)
        if compute.device == "cuda":
            prepare_gpu(compute.tf32)
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
