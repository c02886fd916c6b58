"""`dvc.yaml` against what the stages really import, read and write."""

from pathlib import Path

import pytest
from dvc.repo import Repo

from repblend.params import read_params, read_yaml
from repblend.stages.__main__ import STAGES
from repblend.stages.context import Cell, Paths, StageContext
from tests.stages.imports import ROOT, sources_of

CANNOT_CHANGE_A_BYTE = {
    "src/repblend/__init__.py", "src/repblend/clone.py", "src/repblend/params.py", "src/repblend/progress.py",
    "src/repblend/stages/__init__.py",
    "src/repblend/stages/__main__.py", "src/repblend/stages/context.py", "src/repblend/stages/entry.py",
    "src/repblend/stages/guard.py",
    "src/repblend/stages/lock.py", "src/repblend/stages/resume.py", "src/repblend/stages/sources.py",
    "src/repblend/sections.py", "src/repblend/data_params.py",
    "src/repblend/experts/__init__.py", "src/repblend/encoders/__init__.py", "src/repblend/analysis/__init__.py",
}
"""Sources that only say where files lie, who may write them, and which types parameters have."""


def declared() -> dict[str, dict]:
    """Every stage of dvc.yaml by the module that it runs."""
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    return {name: stage for name, stage in stages.items() if "repblend.stages" in stage["cmd"]}


def module_of(stage: dict) -> str:
    return stage["cmd"].split()[3].replace("-", "_")


@pytest.mark.parametrize("name", declared())
def test_a_stage_depends_on_every_source_that_can_change_its_bytes(name: str) -> None:
    stage = declared()[name]
    needed = {path for module in (f"repblend.stages.{module_of(stage)}", "repblend.stages.harness")
              for path in sources_of(module)}
    missing = [str(path.relative_to(ROOT)) for path in needed
               if str(path.relative_to(ROOT)) not in CANNOT_CHANGE_A_BYTE
               and not any(path == ROOT / dep or ROOT / dep in path.parents for dep in stage["deps"])]
    assert sorted(missing) == []


@pytest.mark.parametrize("name", declared())
def test_a_stage_declares_every_parameter_section_that_its_sources_read(name: str) -> None:
    stage = declared()[name]
    sections = set(read_yaml(ROOT / "params.yaml"))
    tracked = {param.split(".")[0] for param in stage["params"]}
    modules = [module_of(stage)] + (["distill_problem"] if module_of(stage) == "distill" else [])
    text = "\n".join((ROOT / "src/repblend/stages" / f"{module}.py").read_text() for module in modules)
    read = {section for section in sections if f"params.{section}" in text} | {"seed", "compute"}
    assert read - tracked <= {"grid"}  # the grid only tells coresets from distilled sets


@pytest.mark.parametrize("name", declared())
def test_provenance_names_the_sections_that_the_pipeline_tracks(name: str) -> None:
    stage = declared()[name]
    module = __import__(f"repblend.stages.{module_of(stage)}", fromlist=["SECTIONS"])
    tracked = {param.split(".")[0] for param in stage["params"]}
    assert set(module.SECTIONS) | {"seed", "compute"} == tracked


def test_every_stage_depends_on_the_locked_packages_and_on_what_the_image_is_made_of() -> None:
    for name, stage in read_yaml(ROOT / "dvc.yaml")["stages"].items():
        assert {"requirements/lock.txt", "docker/contents.json"} <= set(stage["deps"]), name


def test_every_stage_module_is_in_the_pipeline() -> None:
    assert {module_of(stage) for stage in declared().values()} == {stage.replace("-", "_") for stage in STAGES}


def test_outputs_are_where_the_stages_write_them() -> None:
    paths = Paths(Path())
    cell = Cell("random", 50)
    distilled = Cell("repblend", 50)
    expected = {
        "prepare": [paths.data, paths.metrics("prepare")],
        "encode": [paths.features, paths.metrics("encode")],
        "experts": [paths.experts, paths.metrics("experts")],
        "select@random-50": [paths.set(cell), paths.metrics("select", cell)],
        "distill@repblend-50": [paths.set(distilled), paths.metrics("distill", distilled),
                                paths.metrics("specimens", distilled)],
        "evaluate-coreset@random-50": [paths.metrics("evaluate", cell)],
        "evaluate-distilled@repblend-50": [paths.metrics("evaluate", distilled)],
        "bounds": [paths.metrics("evaluate", "full-data"), paths.metrics("evaluate", "chance")],
        "report": [Path("paper/report.html"), Path("paper/tables"), Path("paper/figures")],
    }
    with Repo(ROOT) as repo:
        stages = {stage.addressing: sorted(out.def_path for out in stage.outs) for stage in repo.index.stages}
    for name, outputs in expected.items():
        assert stages[name] == sorted(map(str, outputs)), name


def test_every_cell_of_the_grid_is_a_stage_with_parameters_of_its_own() -> None:
    params = read_params(ROOT / "params.yaml")
    with Repo(ROOT) as repo:
        stages = {stage.addressing: stage for stage in repo.index.stages}
    for method in params.grid.distilled:
        for budget in params.grid.budgets:
            tracked = {key for dep in stages[f"distill@{method}-{budget}"].deps if hasattr(dep, "params")
                       for key in dep.params}
            assert f"distill.cells.{method}-{budget}" in tracked
            assert not any(key.startswith("distill.cells.") and not key.endswith(f"{method}-{budget}")
                           for key in tracked)


def test_names_of_stages() -> None:
    params = read_params(ROOT / "params.yaml")
    assert StageContext("encode", None, params, Paths(ROOT)).name == "encode"
    assert StageContext("distill", Cell("repblend", 50), params, Paths(ROOT)).name == "distill@repblend-50"


@pytest.mark.parametrize("text", ["repblend", "repblend-", "-50", "repblend-x", "repblend-0", ""])
def test_malformed_cells_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected <method>-<budget>"):
        Cell.parse(text)


def test_a_cell_is_written_as_it_is_read() -> None:
    assert Cell.parse("k-center-100") == Cell("k-center", 100) and str(Cell("k-center", 100)) == "k-center-100"
