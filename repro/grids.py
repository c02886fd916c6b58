"""Which stages a grid consists of: `quickstart`, some minutes, or `openmoji`, everything."""

from enum import StrEnum
from pathlib import Path

from repblend.params import read_params


class Grid(StrEnum):
    """The grids of `params.yaml`."""

    QUICKSTART = "quickstart"
    OPENMOJI = "openmoji"


def results_of(grid: Grid, root: Path) -> list[str]:
    """Return the DVC stages that write a grid's results; what they need is not named. None are all stages, the report
    among them.

    Raises:
        ValueError: `params.yaml` is not as expected.
    """
    if grid is Grid.OPENMOJI:
        return []
    cells = read_params(root / "params.yaml").quickstart
    return ["bounds", *(f"{stage}@{method}-{budget}" for stage, methods in (
        ("evaluate-coreset", cells.coresets), ("evaluate-distilled", cells.distilled))
        for method in methods for budget in cells.budgets)]
