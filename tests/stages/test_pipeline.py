"""The table of the pipeline and `conf/multimodal.dvc.yaml` against what the stages import, and against each other."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from re import sub
from typing import Any

import pytest
from dvc.repo import Repo

from repblend.grid import Cell
from repblend.params import Params, read_params
from repblend.params.reading import read_yaml
from repblend.runtime.context import Paths
from repblend.runtime.settings import SETTINGS, settings_file
from repblend.stages.pipeline import Context
from repro.pipeline import pipeline_for
from repro.profiles import compose
from tests.stages.imports import PACKAGE, ROOT, undeclared, unneeded

TEMPLATE = ROOT / "conf/multimodal.dvc.yaml"
STAGES = Context.pipeline.stages


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_declared_to_be_made_of_all_that_it_imports_and_of_nothing_else(name: str) -> None:
    assert undeclared(Context.pipeline, name) == [] and unneeded(Context.pipeline, name) == []


@pytest.mark.parametrize("name", Context.pipeline.names[1:])
def test_a_stage_declares_every_section_of_the_parameters_that_its_module_reads(name: str) -> None:
    text = (PACKAGE / "stages" / f"{name.replace('-', '_')}.py").read_text()
    read = {section for section in Params.model_fields if f"params.{section}" in text} - {"seed"}
    assert read <= set(Context.pipeline.stages[name].sections)


def stages_of(params: dict[str, Any]) -> Iterator[tuple[str, str | None, dict[str, Any], dict[str, Any]]]:
    """Every stage of a made `dvc.yaml` with every cell: module's stage, cell, declaration, values of the cell."""
    pipeline = pipeline_for(TEMPLATE, params, PurePosixPath("."), {})
    for stage in pipeline["stages"].values():
        axes = {name: params["grid"][entry[7:-1]] for name, entry in stage.get("matrix", {}).items()}
        for values in product(axes):
            _, _, _, *words = filled(stage["cmd"], values, params).split()
            yield (words[0] if words else "report"), (words[1] if len(words) > 1 else None), stage, values


def product(axes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = [{}]
    for name, values in axes.items():
        cells = [cell | {name: value} for cell in cells for value in values]
    return cells


def filled(text: str, values: dict[str, Any], params: dict[str, Any]) -> str:
    text = sub(r"\$\{item\.(\w+)\}", lambda found: str(values[found[1]]), text)
    return sub(r"\$\{grid\.(\w+)\}", lambda found: str(params["grid"][found[1]]), text)


@pytest.mark.parametrize("profile", ["quickstart", "openmoji", "flickr30k", "coco", "cc3m"])
def test_the_cells_of_the_table_are_those_of_dvc_yaml_and_each_depends_on_its_settings(profile: str) -> None:
    params = compose(ROOT, profile)[1]
    made = [entry for entry in stages_of(params) if entry[0] != SETTINGS]
    expected = [(stage, None if cell is None else str(cell))
                for stage, cell in Context.pipeline.cells(Params.model_validate(params))]
    assert sorted((stage, str(cell)) for stage, cell, _, _ in made) == sorted(
        (stage, str(cell)) for stage, cell in expected)
    for stage, cell, declared, values in made:
        dependencies = [filled(dep, values, params) for dep in declared["deps"]]
        assert dependencies[0] == f"settings/{settings_file(stage, cell)}"
        assert not any(dep.startswith(("src", "docker", "requirements")) for dep in dependencies)
        assert "params" not in declared


def test_the_root_is_the_quickstart() -> None:
    assert read_yaml(ROOT / "params.yaml") == compose(ROOT, "quickstart")[1]
    made = pipeline_for(TEMPLATE, read_yaml(ROOT / "params.yaml"), PurePosixPath("."), {})
    assert read_yaml(ROOT / "dvc.yaml") == made
    assert not any("encoder" in name or "transfer" in name or "embed" in name for name in made["stages"])


def test_what_no_stage_makes_is_neither_waited_for_nor_drawn() -> None:
    params = compose(ROOT, "openmoji", ["grid.encoder_distilled=[]", "grid.distilled=[]", "grid.all_variants=[]",
                                        "~grid.variants", "+grid.variants={}", "grid.compared_budgets=[]",
                                        "~grid.pairs", "+grid.pairs={}", "grid.encoder_pairs=[]",
                                        "grid.larger_pairs=[]", "grid.regimes=[]"])[1]
    made = pipeline_for(TEMPLATE, params, PurePosixPath("../.."), {"encode": [Path("conf/x.json")]})
    assert made["stages"]["encode"]["deps"][-1] == "../../conf/x.json"
    report = made["stages"]["report"]["deps"]
    assert "records/evaluate" in report and "../../paper/report.ipynb" in report
    assert not {"records/distill", "records/embed", "records/transfer", "records/encoder-experts.json"} & set(report)
    assert [title for plot in made["plots"] for title in plot] == ["Mean recall by epoch"]
    assert "records/evaluate/random-20/recall.csv" in made["plots"][0]["Mean recall by epoch"]["y"]


def test_brought_files_of_an_unknown_stage_and_a_missing_parameter_are_named() -> None:
    with pytest.raises(ValueError, match="has no stage bake"):
        pipeline_for(TEMPLATE, read_yaml(ROOT / "params.yaml"), PurePosixPath("."), {"bake": []})
    with pytest.raises(ValueError, match=r"params\.yaml: has no grid\.encoder_pairs"):
        pipeline_for(TEMPLATE, {"grid": {}}, PurePosixPath("."), {})


def test_outputs_are_where_the_stages_write_them() -> None:
    paths = Paths(Path())
    random, distilled = Cell("random", 50), Cell("repblend", 50)

    def evaluated(name: object) -> list[Path]:
        return [paths.record("evaluate", name).parent, paths.metric("held-out", name), paths.metric("faithful", name)]

    expected = {
        "settings": [paths.root / SETTINGS],
        "prepare": [paths.data, paths.record("prepare")],
        "encode": [paths.features, paths.record("encode")],
        "experts": [paths.experts, paths.record("experts")],
        "select@random-50": [paths.set(random), paths.record("select", random).parent],
        "distill@repblend-50": [paths.set(distilled), paths.record("distill", distilled).parent],
        "evaluate-coreset@random-50": evaluated(random),
        "evaluate-distilled@repblend-50": evaluated(distilled),
        "bounds": [*evaluated("full-data"), paths.record("evaluate", "chance"), *evaluated("chance")[1:]],
        "report": [Path("paper/report.html"), Path("paper/tables"), Path("paper/figures")],
    }
    with Repo(ROOT) as repo:
        stages = {stage.addressing: stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml"}
    for name, outputs in expected.items():
        assert sorted(out.def_path for out in stages[name].outs) == sorted(map(str, outputs)), name
    for name, stage in stages.items():
        for out in stage.outs:
            assert out.use_cache or out.metric, f"{name}: {out.def_path} is in git and no metric"


def test_names_of_stages() -> None:
    params = read_params(ROOT / "params.yaml")
    assert Context("encode", None, params, Paths(ROOT)).name == "encode"
    found = Context("distill", Cell("repblend", 50), params, Paths(ROOT))
    assert (found.name, found.command) == ("distill@repblend-50", "python -m repblend.stages distill repblend-50")


@pytest.mark.parametrize("text", ["repblend", "repblend-", "-50", "repblend-x", "repblend-0", ""])
def test_malformed_cells_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected <method>-<budget>"):
        Cell.parse(text)


def test_a_cell_is_written_as_it_is_read() -> None:
    assert Cell.parse("k-center-100") == Cell("k-center", 100) and str(Cell("k-center", 100)) == "k-center-100"
