"""The table of the unimodal pipeline and `conf/ufc.dvc.yaml` against what the stages import, and against each other."""

import inspect
from pathlib import Path, PurePosixPath

import pytest
from dvc.repo import Repo
from dvc.stage import PipelineStage

from repblend.grid import Cell
from repblend.params.reading import read_yaml
from repblend.runtime.settings import SETTINGS, settings_file
from repblend.ufc.params import UfcParams, read_ufc_params
from repblend.ufc.stages.pipeline import SETS, StudentCell, UfcContext, UfcPaths, regions
from repro.pipeline import pipeline_for
from tests.stages.imports import ROOT, undeclared, unneeded

PIPELINE = UfcContext.pipeline
WORKSPACE = PurePosixPath("profiles/ufc-glyphs")


@pytest.fixture(scope="module")
def stages() -> list[tuple[str, str | None, PipelineStage]]:
    """Every stage of the committed workspace by DVC's own reading: its name in the table, its cell, and what it is."""
    with Repo(ROOT) as repo:
        found = [stage for stage in repo.index.stages if stage.path_in_repo == f"{WORKSPACE}/dvc.yaml"]
    words = [stage.cmd.split()[3:] for stage in found]
    return [(own[0] if own else "report", own[1] if len(own) > 1 else None, stage)
            for own, stage in zip(words, found, strict=True)]


def files_of(deps_or_outs: list) -> list[str]:
    return [each.def_path for each in deps_or_outs]


@pytest.mark.parametrize("name", PIPELINE.stages)
def test_a_stage_is_declared_to_be_made_of_all_that_it_imports_and_of_nothing_else(name: str) -> None:
    assert undeclared(PIPELINE, name) == [] and unneeded(PIPELINE, name) == []


@pytest.mark.parametrize("name", PIPELINE.names[1:])
def test_a_stage_declares_every_section_of_the_parameters_that_its_function_reads(name: str) -> None:
    text = inspect.getsource(PIPELINE.function(name))
    read = {section for section in UfcParams.model_fields if f"params.{section}" in text} - {"seed"}
    assert read <= set(PIPELINE.stages[name].sections)


def test_the_cells_of_the_table_are_those_of_dvc_yaml_and_each_depends_on_its_settings(stages: list) -> None:
    params = read_ufc_params(ROOT / WORKSPACE / "params.yaml")
    made = [entry for entry in stages if entry[0] != SETTINGS]
    expected = [(stage, str(cell)) for stage, cell in PIPELINE.cells(params)]
    assert sorted((stage, str(cell)) for stage, cell, _ in made) == sorted(expected)
    for stage, cell, declared in made:
        dependencies = files_of(declared.deps)
        assert f"{SETTINGS}/{settings_file(stage, cell)}" in dependencies
        assert not any(part in dep for dep in dependencies for part in ("src/", "docker/", "requirements/"))


def test_the_committed_pipeline_is_made_from_the_template() -> None:
    made = pipeline_for(ROOT / "conf/ufc.dvc.yaml", read_yaml(ROOT / WORKSPACE / "params.yaml"),
                        PurePosixPath("../.."), {})
    assert read_yaml(ROOT / WORKSPACE / "dvc.yaml") == made
    assert [title for plot in made["plots"] for title in plot] == [
        "Accuracy by epoch", "Generation loss by iteration", "Loss of teachers by epoch"]


def test_outputs_are_where_the_stages_write_them(stages: list) -> None:
    paths = UfcPaths(Path())

    def expected(stage: str, cell: str | None) -> list[Path]:
        match stage, cell:
            case "initial", _:
                return [paths.initial, paths.record("initial")]
            case "teacher", str():
                return [paths.teacher(cell), paths.record(stage, cell).parent,
                        paths.metric("held-out", f"teacher+{cell}")]
            case "generate", str():
                return [paths.compensators(cell), paths.record(stage, cell).parent]
            case ("integrate" | "select"), str():
                return [paths.set(Cell.parse(cell)), paths.record("sets", cell).parent]
            case "label", str():
                return [paths.labels(Cell.parse(cell)), paths.record(stage, cell).parent]
            case "validate", str():
                return [paths.predictions(StudentCell.parse(cell)), paths.record(stage, cell).parent,
                        paths.metric("held-out", cell), paths.metric("faithful", cell)]
            case "regions", _:
                return [paths.record(stage, "any").parent.parent]
            case "report", _:
                return [Path("paper", name) for name in ("report.html", "tables", "figures")]
        return [paths.root / SETTINGS] if stage == SETTINGS else [paths.record(stage)]

    for stage, cell, declared in stages:
        assert sorted(files_of(declared.outs)) == sorted(map(str, expected(stage, cell))), declared.addressing
        for out in declared.outs:
            assert out.use_cache or out.metric, f"{out.def_path} is in git and no metric"


def test_regions_are_of_every_set_with_static_labels() -> None:
    cells = regions(read_ufc_params(ROOT / WORKSPACE / "params.yaml"))
    expected = {(name + draw, ipc) for name in SETS for draw in ("", "+seed-1", "+seed-2") for ipc in (5, 10)}
    assert {(cell.set.method, cell.set.budget) for cell in cells} == expected
    assert {(cell.labels, cell.student) for cell in cells} == {("static", "convnet-small")}


@pytest.mark.parametrize("text", ["ufc+static+resnet18-10", "random+hard+convnet128-3", "real+dynamic+a-b-50",
                                  "ufc+seed-2+static+resnet18-10"])
def test_a_students_cell_is_written_as_it_is_read(text: str) -> None:
    assert str(StudentCell.parse(text)) == text


@pytest.mark.parametrize("text", ["ufc-10", "ufc+static-10", "ufc+soft+resnet18-10", "ufc+static+resnet18", "-1"])
def test_malformed_cells_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected <"):
        StudentCell.parse(text)


def test_a_stage_reads_the_cell_that_is_its_own() -> None:
    assert PIPELINE.parse_cell("generate", "resnet18") == "resnet18"
    assert PIPELINE.parse_cell("select", "random-3") == Cell("random", 3)
    assert PIPELINE.parse_cell("validate", "ufc+static+resnet18-3").set == Cell("ufc", 3)


def test_every_further_draw_has_the_stages_of_the_first() -> None:
    content = read_yaml(ROOT / WORKSPACE / "params.yaml") | {"seeds": [1, 2]}
    made = pipeline_for(ROOT / "conf/ufc.dvc.yaml", content, PurePosixPath("../.."), {})["stages"]
    assert {name for name in made if name.endswith("-seed")} == {
        "integrate-seed", "select-seed", "label-seed", "validate-seed", "validate-real-seed", "validate-hard-seed"}
    params = UfcParams.model_validate({key: value for key, value in content.items() if key != "kind"})
    cells = [str(cell) for stage, cell in PIPELINE.cells(params) if stage == "validate"]
    plain = [cell for cell in cells if "seed-" not in cell]
    assert len(cells) == 3 * len(plain) == len(set(cells))
    for name, stage in made.items():
        of_first = made.get(name.removesuffix("-seed"))
        if name.endswith("-seed"):
            assert list(stage["matrix"]) == [*(["set"] if "set" in of_first["matrix"] else []), "seed",
                                             *(key for key in of_first["matrix"] if key != "set")]
            for key in ("cmd", "deps", "outs", "metrics"):
                written = str(stage.get(key)).replace("+seed-${item.seed}", "").replace("ufc-$", "ufc-$")
                assert written == str(of_first.get(key)), (name, key)
