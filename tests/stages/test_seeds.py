"""Further sets of the same settings: names, draws of their own, and the plain cell's bytes as before."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from ruamel.yaml import YAML

from repblend.coresets import choose
from repblend.evaluation.protocol import Evaluator
from repblend.grid import Cell
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params
from repblend.params.grid import Grid, seed_apart
from repblend.runtime.context import Paths
from repblend.stages.pipeline import Context, distilled, evaluated
from repblend.stages.select import run as select
from repblend.streams import seed_of_set
from repblend.titles import title
from repro.profiles import compose
from tests.report.synthetic import WHOLE_GRID
from tests.stages.test_pairs import MATCHING
from tests.stages.test_pipeline import ROOT
from tests.tiny import tiny_content

CELLS = ("repblend-6", "repblend+seed-1-6", "repblend+seed-2-6")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which three sets of one method, and of one coreset, were made."""
    content: dict[str, Any] = tiny_content()
    content["experts"] |= {"num": 2, "min_steps": 0, "epochs": 4, "batch_size": 4, "snapshots_every": 3}
    content["distill"]["common"] |= MATCHING
    content["distill"]["cells"] |= {"repblend-6": {}}
    content["grid"] |= {"budgets": [6], "coresets": ["random"], "distilled": ["repblend"], "seeds": [1, 2],
                        "seed_budgets": [6], "regime_seed_budgets": []}
    folder = tmp_path_factory.mktemp("seeds")
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(content, file)
    for stage, cell in (("prepare", None), ("encode", None), ("experts", None), ("select", "random-6"),
                        ("select", "random+seed-1-6"), *(("distill", cell) for cell in CELLS),
                        ("evaluate", "repblend+seed-1-6"), ("evaluate", "random+seed-1-6")):
        Context.pipeline.function(stage)(Context.of(folder, stage, cell))
    return folder


@pytest.mark.parametrize(("text", "seed", "plain", "base", "variant"), [
    ("repblend-50", 0, "repblend-50", "repblend-50", ""),
    ("repblend+seed-3-50", 3, "repblend-50", "repblend+seed-3-50", ""),
    ("repblend+rank-2-50", 0, "repblend+rank-2-50", "repblend-50", "rank-2"),
    ("repblend+rank-2+seed-12-50", 12, "repblend+rank-2-50", "repblend+seed-12-50", "rank-2"),
    ("random+encoder-students+seed-1-50", 1, "random+encoder-students-50", "random+seed-1-50", "encoder-students")])
def test_a_cell_says_its_seed_and_the_cell_whose_settings_it_has(text: str, seed: int, plain: str, base: str,
                                                                 variant: str) -> None:
    cell = Cell.parse(text)
    assert (cell.seed, str(cell.without_seed), str(cell.base), cell.variant) == (seed, plain, base, variant)
    assert str(cell) == text and (not seed or cell.without_seed.with_seed(seed) == cell)
    assert cell.trains_encoder == text.startswith("random+encoder-students")


def test_a_seed_stands_in_the_title_and_zero_is_no_name() -> None:
    assert title("repblend+seed-1") == "RepBlend (seed 1)" and title("repblend+rank-2+seed-1") == (
        "RepBlend (rank-2, seed 1)")
    assert seed_apart("repblend+seed-0") == ("repblend+seed-0", 0)


def test_set_zero_draws_from_the_run_s_own_streams_and_others_from_their_own() -> None:
    assert seed_of_set(7, 0) == 7
    seeds = {seed_of_set(seed, number) for seed in (0, 7) for number in range(4)}
    assert len(seeds) == 8 and all(-2**63 <= seed < 2**63 for seed in seeds)


def test_each_set_starts_from_other_pairs_and_learns_other_tensors(workspace: Path) -> None:
    sets = [SyntheticSet.read(Paths(workspace).set(Cell.parse(cell))) for cell in CELLS]
    initial = [tuple(each.metadata["initial_pairs"]) for each in sets]
    assert len(set(initial)) == 3
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(sets[first].texts, sets[second].texts)


def test_a_set_of_a_seed_has_the_same_bytes_twice(workspace: Path) -> None:
    paths, cell = Paths(workspace), CELLS[1]
    before = paths.set(Cell.parse(cell)).read_bytes()
    Context.pipeline.function("distill")(Context.of(workspace, "distill", cell))
    assert paths.set(Cell.parse(cell)).read_bytes() == before


def test_students_of_a_set_have_draws_of_their_own_and_one_number_the_same_for_all_methods(
        workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def look(splits: Any, towers: Any, seed: int, *rest: Any) -> Evaluator:
        seeds.append(seed)
        return Evaluator(splits, towers, seed, *rest)

    monkeypatch.setattr("repblend.stages.students.Evaluator", look)
    for stage, cell in (("distill", "repblend+seed-1-6"), ("evaluate", "repblend+seed-1-6"),
                        ("evaluate", "random+seed-1-6"), ("distill", "repblend-6"), ("evaluate", "repblend-6")):
        Context.pipeline.function(stage)(Context.of(workspace, stage, cell))
    assert seeds == [seed_of_set(0, 1)] * 3 + [0] * 2


def test_a_coreset_of_a_seed_is_the_choice_of_that_seed(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [SyntheticSet.read(Paths(workspace).set(Cell.parse(cell))).metadata["pairs"]
              for cell in ("random-6", "random+seed-1-6")]
    assert chosen[0] != chosen[1] and len(set(chosen[1])) == 6
    seeds = []

    def look(method: str, budget: int, real: Any) -> list[int]:
        seeds.append((method, real.seed))
        return choose(method, budget, real)

    monkeypatch.setattr("repblend.stages.select.choose", look)
    select(Context.of(workspace, "select", "random+seed-1-6"))
    assert seeds == [("random", seed_of_set(0, 1))]


def test_settings_of_a_further_set_are_those_of_the_plain_one() -> None:
    params = Params.model_validate(compose(ROOT, "openmoji")[1])
    for name in ("lors-100", "repblend-50"):
        cell = Cell.parse(name)
        assert params.distill.settings(str(cell.with_seed(1))) == params.distill.settings(name)
    with pytest.raises(ValueError, match=r"distill\.cells has no 'repblend-7'"):
        params.distill.settings("repblend+seed-1-7")


def test_openmoji_has_three_sets_of_every_method_and_coreset() -> None:
    params = Params.model_validate(compose(ROOT, "openmoji")[1])
    grid, found = params.grid, [Cell.parse(str(cell)) for cell in evaluated(params)]
    for method in (*grid.coresets, *grid.distilled, *grid.encoder_distilled,
                   *(f"{coreset}+encoder-students" for coreset in grid.encoder_coresets)):
        for budget in (50, 100):
            plain = Cell(method, budget)
            assert [cell.seed for cell in found if cell.without_seed == plain] == [0, 1, 2], method
    for method in grid.regimes:
        numbers = {budget: [cell.seed for cell in found if cell.without_seed == Cell(method, budget)]
                   for budget in grid.regime_budgets}
        assert numbers == {50: [0, 1, 2], 200: [0]}, method
    assert len({*map(str, distilled(params))}) == len(distilled(params))


@pytest.mark.parametrize(("change", "message"), [
    ({"seeds": [0]}, "greater than 0"), ({"seeds": [1, 1]}, "seeds: 1 stands there twice"),
    ({"variants": {"rank": ["repblend+seed-1"]}, "all_variants": ["repblend+seed-1"]},
     r"repblend\+seed-1: is named like a set of grid\.seeds; rename it"),
    ({"pairs": {"seed-1": WHOLE_GRID["pairs"]["large"]}, "encoder_pairs": ["seed-1"], "larger_pairs": []},
     r"seed-1: is named like a set of grid\.seeds; rename it")])
def test_seeds_that_could_be_mistaken_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Grid.model_validate(WHOLE_GRID | change)


@pytest.mark.parametrize(("key", "message"), [
    ("seed_budgets", "no set has 7 pairs"), ("regime_seed_budgets", "no regime's set has 7 pairs")])
def test_further_sets_stand_beside_plain_ones(key: str, message: str) -> None:
    content = tiny_content()
    content["grid"] |= {"seeds": [1], key: [7]}
    with pytest.raises(ValueError, match=rf"grid\.{key}: {message}"):
        Params.model_validate(content).check_sizes(1000, 5000)
