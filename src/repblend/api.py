"""The package from Python: load a distilled set or a coreset, train students on it, evaluate them, compare two sets.

What is not an argument comes from a workspace, the folder of a clone that has run `repro run encode` at least: from its
`params.yaml` how students train, from `features` the validation and test split. Students are those of stage `evaluate`,
with its draws: what they reach on the test split is what `records/evaluate` says, to the last bit on a like machine.

Shapes: N pairs, S students, P parameters of one side.
"""

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from repblend.data.features import SplitFeatures
from repblend.evaluation.protocol import Scores, first_best, score
from repblend.evaluation.recall import MEAN_RECALL, RECALLS
from repblend.grid import Cell, schedule_of
from repblend.matching.student import PerModality
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params, read_params
from repblend.runtime.context import Paths
from repblend.runtime.harness import compute_deterministically, prepare_gpu
from repblend.schedules import scored_epochs
from repblend.stages.evaluate import evaluate_cell

__all__ = ["SetComparison", "SplitFeatures", "Spread", "Students", "SyntheticSet", "compare", "evaluate", "load_set",
           "train_students"]
RELEASED = "set.safetensors"
"""The tensors of a set in the folder that `repro export` writes."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over students, in percent."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.fmean(values), statistics.stdev(values))

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.std:.1f}"


@dataclass(frozen=True)
class Students:
    """Students that were trained on one set, each at the epoch that the validation split chose."""

    name: str
    """Method and budget of the set: `repblend-100`."""
    heads: PerModality
    """Their parameters: `img` and `txt`, float32 (S, P)."""
    epochs: list[int]
    """The epoch that was chosen for each, counted from 0."""
    scores: Scores = field(repr=False)
    """What they are (`student`), the splits of the workspace (`splits`), and recalls at every scored epoch."""


def load_set(path: Path | str) -> SyntheticSet:
    """Load a distilled set or a coreset.

    Args:
        path: a file of `sets/`, or a folder that `repro export` wrote.

    Returns:
        The set: `images` (N, 3, H, W) float32, normalised as the image encoder sees them; `texts` (N, D_txt) float32,
        in the text encoder's space; `similarity.matrix()` (N, N) float32; the students' learning rates `lr_img` and
        `lr_txt`; `metadata`.

    Raises:
        ValueError: the file is missing, damaged, or no synthetic set.
    """
    path = Path(path)
    return SyntheticSet.read(path / RELEASED if path.is_dir() else path)


def train_students(synthetic: SyntheticSet, workspace: Path | str = ".") -> Students:
    """Train the students of a set: `evaluate.num_seeds` of them, as stage `evaluate` does.

    Takes seconds for heads on frozen encoders; sets of methods that match the whole image encoder train that, which
    takes minutes. PyTorch computes meanwhile with the workspace's threads, by deterministic algorithms.

    Args:
        synthetic: as `load_set` gives it.
        workspace: a folder with `params.yaml` and `features`.

    Raises:
        ValueError: the set does not say of which method it is, the workspace lacks a file, or a student diverged.
    """
    paths = Paths(Path(workspace))
    params = read_params(paths.params)
    if not {"cell", "loss"} <= synthetic.metadata.keys():
        raise ValueError("the set's metadata: expected 'cell' (method and budget) and 'loss', which say how students "
                         f"train on it; found {', '.join(synthetic.metadata) or 'nothing'}. Load one of sets/")
    cell, kept = Cell(**synthetic.metadata["cell"]), dict[int, PerModality]()
    schedule = schedule_of(cell, params.evaluate)
    scored = scored_epochs(schedule.epochs, schedule.scored_intervals)

    def keep(epoch: int, heads: Callable[[], PerModality], _losses: Tensor) -> None:
        if epoch in scored:
            kept[epoch] = PerModality(*(side.detach().clone() for side in heads()))

    with _computing(params):
        scores = evaluate_cell(cell, synthetic, params, paths, keep)
    curves = zip(*([recalls[MEAN_RECALL] for recalls in epoch] for epoch in scores.recalls["val"]), strict=True)
    epochs = [scores.epochs[first_best(curve)] for curve in curves]
    chosen = (torch.stack([kept[epoch][side][number] for number, epoch in enumerate(epochs)]) for side in (0, 1))
    return Students(str(cell), PerModality(*chosen), epochs, scores)


def evaluate(students: Students, split: SplitFeatures | None = None) -> dict[str, Spread]:
    """Return what students reach in retrieval, in percent: `ir_at_1`, `ir_at_5`, `ir_at_10` (a text query finds its
    image), `tr_at_1`, `tr_at_5`, `tr_at_10` (an image query finds one of its texts) and `mean_recall`, their mean.

    Args:
        split: other images and texts than the workspace's test split, from the same encoders: `images` (N, D_img) and
            `texts` (C, D_txt) float32, `text_to_image` (C,) int64.

    Raises:
        ValueError: a score is not finite, or an image has no text.
    """
    found = score(students.heads, students.scores.student, split or students.scores.splits["test"],
                  students.scores.candidates)
    return {name: Spread.of([recalls[name] for recalls in found]) for name in (*RECALLS, MEAN_RECALL)}


@dataclass(frozen=True)
class SetComparison:
    """Mean recall on the test split of students of two sets, in percent."""

    first: Spread
    second: Spread
    difference: float
    """Of the first from the second, student by student: those of one number begin alike."""
    standard_error: float
    """Of the difference, over students; how sets vary from one distillation to the next is not in it."""

    def __str__(self) -> str:
        return f"{self.first} against {self.second}: {self.difference:+.1f} ± {2 * self.standard_error:.1f}"


def compare(first: Students, second: Students, split: SplitFeatures | None = None) -> SetComparison:
    """Compare two sets by their students' mean recall.

    Args:
        first, second: as `train_students` gives them, in one workspace.
        split: as of `evaluate`.

    Raises:
        ValueError: the numbers of students differ; or as `evaluate`.
    """
    sides = [[recalls[MEAN_RECALL] for recalls in score(
        each.heads, each.scores.student, split or each.scores.splits["test"], each.scores.candidates)]
        for each in (first, second)]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"compare: {len(sides[0])} students of {first.name} and {len(sides[1])} of {second.name}; "
                         "expected as many. Train both in one workspace (evaluate.num_seeds)")
    apart = Spread.of([one - other for one, other in zip(*sides, strict=True)])
    return SetComparison(Spread.of(sides[0]), Spread.of(sides[1]), apart.mean, apart.std / math.sqrt(len(sides[0])))


@contextmanager
def _computing(params: Params) -> Iterator[None]:
    """Let PyTorch compute as in stages while the body runs."""
    threads, deterministic = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    try:
        compute_deterministically(params.compute.threads)
        if params.compute.device == "cuda":
            prepare_gpu(params.compute.arithmetic)
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(deterministic)
