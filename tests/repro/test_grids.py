"""What a grid consists of, against the pipeline."""

from pathlib import Path

from dvc.repo import Repo

from repblend.params import read_params
from repro.grids import Grid, results_of

ROOT = Path(__file__).parents[2]


def test_the_quickstart_names_stages_of_the_pipeline_one_per_result() -> None:
    stages = {stage.addressing for stage in Repo(str(ROOT)).index.stages}
    named, cells = results_of(Grid.QUICKSTART, ROOT), read_params(ROOT / "params.yaml").quickstart
    assert set(named) <= stages
    assert len(set(named)) == 1 + len(cells.budgets) * (len(cells.coresets) + len(cells.distilled))
    assert "evaluate-distilled@repblend-100" in named and not any("encoder" in name for name in named)


def test_the_whole_grid_is_everything() -> None:
    assert results_of(Grid.OPENMOJI, ROOT) == []
