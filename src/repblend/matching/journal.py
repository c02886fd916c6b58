"""What a distillation writes down as it goes: a curve per iteration, measures at validations, the best validation."""

from dataclasses import dataclass, field

from repblend.matching.distillation import IterationResult
from repblend.store import JSON

CRITERION = "val_mean_recall"
CRITERIA = {"best-validation": CRITERION, "best-test": "test_mean_recall", "last": "iteration"}
"""Which column of the validations decides which iteration is the result, by its name in `params.yaml`: the highest
value's, of equal ones the first."""


@dataclass
class Journal:
    """The course of one distillation; all of it goes into its checkpoints and its metrics."""

    curves: dict[str, list[float]] = field(default_factory=dict)
    """Name -> one value per iteration, measured before its update."""
    checkpoints: dict[str, list[float]] = field(default_factory=dict)
    """Name -> one value per validation."""
    criterion: str = CRITERION
    """The column of `checkpoints` that decides."""

    def record(self, iteration: int, result: IterationResult) -> None:
        """Note what one iteration measured."""
        losses, rates = result
        _append(self.curves, {
            "iteration": iteration, "matching_loss": (losses.img + losses.txt).item(),
            "matching_loss_img": losses.img.item(), "matching_loss_txt": losses.txt.item(),
            "lr_img": rates.img.item(), "lr_txt": rates.txt.item(),
        })

    def observed(self, iteration: int) -> bool:
        """Whether the set of this iteration was validated already."""
        return iteration in self.checkpoints.get("iteration", [])

    def observe(self, iteration: int, measures: dict[str, float]) -> bool:
        """Note one validation; return whether it is the best so far (of equal ones, the first)."""
        row = {"iteration": iteration} | measures
        best = all(row[self.criterion] > value for value in self.checkpoints.get(self.criterion, []))
        _append(self.checkpoints, row)
        return best

    @property
    def chosen_iteration(self) -> int:
        """The iteration of the best validation."""
        values = self.checkpoints[self.criterion]
        return self.checkpoints["iteration"][values.index(max(values))]

    def to_json(self) -> JSON:
        return {"curves": self.curves, "checkpoints": self.checkpoints}


def _append(columns: dict[str, list[float]], row: dict[str, float]) -> None:
    for name, value in row.items():
        columns.setdefault(name, []).append(value)
