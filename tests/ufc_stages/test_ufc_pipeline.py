"""`conf/ufc.dvc.yaml` against what the stages really import, read and write."""

from pathlib import Path

import pytest

from repblend.params import read_yaml
from repblend.stages.context import Cell
from repblend.ufc.params import UfcParams
from repblend.ufc_stages.__main__ import STAGES
from repblend.ufc_stages.context import StudentCell, UfcContext, UfcPaths
from tests.stages.imports import ROOT, sources_of
from tests.stages.test_pipeline import CANNOT_CHANGE_A_BYTE

TEMPLATE = ROOT / "conf" / "ufc.dvc.yaml"
ONLY_NAMES = CANNOT_CHANGE_A_BYTE | {"src/repblend/ufc_stages/__init__.py", "src/repblend/ufc_stages/context.py"}


def declared() -> dict[str, dict]:
    """Every stage of the template that runs a stage module."""
    stages = read_yaml(TEMPLATE)["stages"]
    return {name: stage for name, stage in stages.items() if "repblend.ufc_stages" in stage["cmd"]}


def module_of(stage: dict) -> str:
    return stage["cmd"].split()[3]


def module(name: str):
    return __import__(f"repblend.ufc_stages.{module_of(declared()[name])}", fromlist=["SECTIONS"])


@pytest.mark.parametrize("name", declared())
def test_a_stage_depends_on_every_source_that_can_change_its_bytes(name: str) -> None:
    stage = declared()[name]
    needed = {path for source in (f"repblend.ufc_stages.{module_of(stage)}", "repblend.stages.harness")
              for path in sources_of(source)}
    missing = [str(path.relative_to(ROOT)) for path in needed if str(path.relative_to(ROOT)) not in ONLY_NAMES
               and not any(path == ROOT / dep or ROOT / dep in path.parents for dep in stage["deps"])]
    assert sorted(missing) == []


@pytest.mark.parametrize("name", declared())
def test_provenance_names_the_sections_that_the_pipeline_tracks(name: str) -> None:
    assert set(module(name).SECTIONS) | {"seed", "compute"} == set(declared()[name]["params"])


@pytest.mark.parametrize("name", declared())
def test_a_stage_tracks_every_parameter_that_it_reads(name: str) -> None:
    own = Path(module(name).__file__).read_text()
    read = {section for section in UfcParams.model_fields if f"params.{section}" in own}
    assert read - {"seed"} <= set(declared()[name]["params"])


def test_every_stage_module_is_in_the_pipeline() -> None:
    assert {module_of(stage) for stage in declared().values()} == set(STAGES)


def test_every_stage_depends_on_the_locked_packages_and_on_what_the_image_is_made_of() -> None:
    for name, stage in read_yaml(TEMPLATE)["stages"].items():
        assert {"requirements/lock.txt", "docker/contents.json"} <= set(stage["deps"]), name


def test_outputs_are_where_the_stages_write_them() -> None:
    paths, cell = UfcPaths(Path()), Cell("${item.set}", "${item.budget}")
    ufc = Cell("ufc", "${item.budget}")
    students = StudentCell(cell, "${item.labels}", "${item.student}")
    architecture = "${item.architecture}"
    expected = {
        "prepare": [paths.metrics("prepare")],
        "initial": [paths.initial, paths.metrics("initial")],
        "teacher": [paths.teacher(architecture), paths.metrics("teacher", architecture)],
        "generate": [paths.compensators(architecture), paths.metrics("generate", architecture)],
        "integrate": [paths.set(ufc), paths.metrics("sets", ufc)],
        "select": [paths.set(cell), paths.metrics("sets", cell)],
        "label": [paths.labels(cell), paths.metrics("label", cell)],
        "validate": [paths.predictions(students), paths.metrics("validate", students)],
        "regions": [paths.metrics("regions", "any").parent],
    }
    for name, outputs in expected.items():
        found = [out if isinstance(out, str) else next(iter(out)) for out in declared()[name]["outs"]]
        assert sorted(found) == sorted(map(str, outputs)), name


@pytest.mark.parametrize("text", ["ufc+static+resnet18-10", "random+hard+convnet128-3", "real+dynamic+a-b-50"])
def test_a_students_cell_is_written_as_it_is_read(text: str) -> None:
    assert str(StudentCell.parse(text)) == text


@pytest.mark.parametrize("text", ["ufc-10", "ufc+static-10", "ufc+soft+resnet18-10", "ufc+static+resnet18", "-1"])
def test_malformed_cells_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected <"):
        StudentCell.parse(text)


def test_a_stage_reads_the_cell_that_is_its_own() -> None:
    assert UfcContext.parse_cell("generate", "resnet18") == "resnet18"
    assert UfcContext.parse_cell("select", "random-3") == Cell("random", 3)
    assert UfcContext.parse_cell("validate", "ufc+static+resnet18-3").set == Cell("ufc", 3)
