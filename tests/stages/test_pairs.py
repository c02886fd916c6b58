"""Further pairs of encoders: stages write where `dvc.yaml` says, with their own encoders, beside the first pair."""

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch

from repblend.grid import Pair
from repblend.params import Params, read_params
from repblend.report.encoder_pairs import encoder_pairs, larger_table, pairs_table
from repblend.report.grid_records import GridRecords
from repblend.report.sections import INVENTORY
from repblend.runtime.context import Paths
from repblend.stages.pipeline import Context
from repblend.store import read_json
from repblend.tensors import read_tensors
from repro.pipeline import pipeline_for
from repro.profiles import compose
from tests.stages.test_pipeline import ROOT, TEMPLATE, stages_of
from tests.tiny import tiny_content

PAIR = {"image_encoder": "efficientnet_lite1", "text_encoder": "all-MiniLM-L6-v2_first-token"}
EXPERTS = {"num": 2, "min_steps": 0, "epochs": 4, "batch_size": 4, "snapshots_every": 3}
MATCHING = {"iterations": 2, "segments": 1, "inner_steps": 2, "batch_size": 3, "expert_span": 1, "max_start": 1,
            "validate_every": 1, "validation_seeds": 2, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    found = tiny_content()
    found["experts"] |= EXPERTS
    found["encoder_experts"] |= EXPERTS
    found["distill"]["common"] |= MATCHING
    found["distill"]["methods"] |= {"lors": MATCHING}
    found["distill"]["cells"] |= {"repblend+other-6": {}, "lors+other-6": {}}
    found["evaluate"]["encoder_students"] = {"epochs": 2, "scored_intervals": 2}
    found["grid"] |= {"budgets": [6], "coresets": [], "distilled": [], "pairs": {"other": PAIR},
                      "encoder_pairs": ["other"], "larger_pairs": ["other"], "pair_distilled": ["repblend"],
                      "pair_encoder_distilled": ["lors"], "pair_budgets": [6]}
    return found


@pytest.fixture(scope="module")
def workspace(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which all stages of a further pair have run."""
    from ruamel.yaml import YAML

    folder = tmp_path_factory.mktemp("pairs")
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(content, file)
    for stage, cell in (("prepare", None), ("encode", "other"), ("experts", "other"), ("encoder-experts", "other"),
                        ("distill", "repblend+other-6"), ("distill", "lors+other-6"),
                        ("evaluate", "repblend+other-6"), ("evaluate", "lors+other-6")):
        Context.pipeline.function(stage)(Context.of(folder, stage, cell))
    return folder


def test_outputs_are_where_dvc_yaml_has_them(content: dict[str, Any], workspace: Path) -> None:
    outputs = []
    for stage, _, declared, values in stages_of(content):
        for out in (*declared.get("outs", []), *declared.get("metrics", [])) if "pair" in values else ():
            path = out if isinstance(out, str) else next(iter(out))
            for name, value in values.items():
                path = path.replace(f"${{item.{name}}}", str(value))
            outputs.append(path)
            assert (workspace / path).exists(), f"{stage} did not write {path}"
    assert len(outputs) == 2 + 2 + 5 + 2 * 2 + 2 * 3
    assert not any((workspace / name).exists() for name in ("features", "experts", "encoder-experts"))


def test_a_pair_is_encoded_by_its_own_encoders_and_says_so(content: dict[str, Any], workspace: Path) -> None:
    paths = Paths(workspace)
    records = [read_json(paths.record(stage, cell)) for stage, cell in (
        ("encode", "other"), ("experts", "other"), ("distill", "repblend+other-6"), ("evaluate", "lors+other-6"))]
    for record in records:
        found = record["provenance"]["parameters"]["encode"]
        assert {name: found[name] for name in PAIR} == PAIR
    assert (records[0]["image_encoder"], records[0]["text_encoder"]) == tuple(PAIR.values())
    assert all(name.startswith("pairs/other/features/") for name in records[1]["provenance"]["inputs"])
    texts = read_tensors(workspace / "pairs/other/features/test.safetensors")[0]["texts"]
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(len(texts)))
    assert read_params(paths.params).encode.image_encoder == "efficientnet_lite0"


def test_the_report_shows_every_pair(workspace: Path, tmp_path: Path) -> None:
    records = GridRecords.of(workspace)
    rows = [(row.cells[0], row.cells[3], row.status) for row in pairs_table(records).rows]
    assert rows == [(None, method, "not run") for method in ("LoRS", "RepBlend", "Full training set (experts)")] + [
        ("efficientnet_lite1", method, "run") for method in ("LoRS", "RepBlend", "Full training set (experts)")]
    stored = read_json(workspace / "records/evaluate/repblend+other-6/record.json")["protocols"]["held-out"]["mean"]
    assert larger_table(records).rows[-2].cells[4].mean == stored["mean_recall"]  # type: ignore[union-attr]
    encoder_pairs(records, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg", ".pdf", ".png"}


def test_a_pair_that_is_not_declared_is_refused() -> None:
    params = Params.model_validate(tiny_content())
    with pytest.raises(ValueError, match=r"grid\.pairs has no 'other'; expected one of none"):
        Context.pipeline.settings(params, "encode", Pair("other"), ROOT)


def test_settings_of_a_cell_change_with_its_own_encoders_alone() -> None:
    params = Params.model_validate(compose(ROOT, "openmoji")[1])
    changed = Params.model_validate(compose(ROOT, "openmoji", ["grid.pairs.lite1.image_encoder=nfnet_l0"])[1])

    def same(stage: str, cell: str) -> bool:
        found = [Context.pipeline.settings(each, stage, Context.pipeline.parse_cell(stage, cell), ROOT,
                                           lambda source: "0" * 64) for each in (params, changed)]
        return found[0].parameters_sha256 == found[1].parameters_sha256

    cells = {("encode", "lite1"): False, ("experts", "lite1"): False, ("distill", "repblend+lite1-50"): False,
             ("encode", "lite2"): True, ("distill", "repblend+lite2-50"): True, ("distill", "repblend-50"): True}
    assert {cell: same(*cell) for cell in cells} == cells


def test_no_item_of_the_paper_lacks_cells_at_the_embedded_scale() -> None:
    made = pipeline_for(TEMPLATE, compose(ROOT, "openmoji")[1], PurePosixPath("."), {})["stages"]
    folders = {"/".join(item.files.split("/")[:2]) for item in INVENTORY if item.files.startswith("records/")}
    assert all(item.files for item in INVENTORY)
    for folder in folders:
        assert any(out.startswith(f"{folder}/") for stage in made.values() for out in stage["outs"])
