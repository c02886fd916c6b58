"""How far a replay may be from its recording, and how far it is (tolerances of parity/README.md)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

FLOAT64 = 1e-9
FLOAT64_BCE_SECOND_ORDER = 1e-5
FLOAT32 = 1e-4
FLOAT32_DISTILLATION_WBCE = 5e-3
FLOAT32_SATURATING_LOSS = 2e-2
PERCENTAGE_POINTS = 1e-9


@dataclass(frozen=True)
class Difference:
    """One array of a replay against its recording."""

    name: str
    value: float
    """Relative: max |a - b| / max |b|; recall: the largest absolute difference, in percentage points."""
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.value <= self.tolerance  # false for NaN


def relative_difference(ours: Tensor, recorded: Tensor) -> float:
    """Return max |ours - recorded| / max |recorded|, and the absolute difference where the recording is all zero.

    Shapes that differ, and numbers that are not finite on one side only, count as infinitely far.
    """
    ours, recorded = ours.detach().double(), recorded.double()
    if ours.shape != recorded.shape:
        return float("inf")
    finite = recorded.isfinite()
    if not torch.equal(finite, ours.isfinite()):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = recorded[finite].abs().max().item()
    return (ours - recorded)[finite].abs().max().item() / (scale or 1.0)


def absolute_difference(ours: Tensor, recorded: Tensor) -> float:
    """Return the largest absolute difference; shapes that differ count as infinitely far."""
    ours, recorded = ours.detach().double(), recorded.double()
    return (ours - recorded).abs().max().item() if ours.shape == recorded.shape else float("inf")


def tolerance(kind: str, name: str, loss: str, precision: torch.dtype) -> float:
    """Return the tolerance of one array.

    Args:
        kind: kind of the recording, as in `KINDS`.
        name: the array.
        loss: the student's loss, for distillation; otherwise ignored.
        precision: of the recording.
    """
    if precision == torch.float64:
        return FLOAT64_BCE_SECOND_ORDER if kind == "losses" and "_BCE_hvp_" in name else FLOAT64
    if kind == "distillation" and loss == "WBCE":
        return FLOAT32_DISTILLATION_WBCE
    if kind == "losses" and any(f"_{loss}_" in name for loss in ("WBCE", "BCE", "MSE")):
        return FLOAT32_SATURATING_LOSS
    return FLOAT32


def is_recall(name: str) -> bool:
    """Whether an array holds recall in percent: judged by absolute difference."""
    return name.endswith(("_r1", "_r5", "_r10", "_r_mean"))


def differences(kind: str, loss: str, precision: torch.dtype, replayed: dict[str, Tensor],
                recorded: dict[str, Tensor]) -> Iterator[Difference]:
    """Yield every recorded output against its replay; an output that was not replayed is infinitely far."""
    for name, value in recorded.items():
        if name not in replayed:
            yield Difference(name, float("inf"), 0.0)
        elif is_recall(name):
            yield Difference(name, absolute_difference(replayed[name], value), PERCENTAGE_POINTS)
        else:
            yield Difference(name, relative_difference(replayed[name], value), tolerance(kind, name, loss, precision))
