"""Outputs against dvc.lock: which file differs, and which results are not those that params.yaml asks for."""

import json
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from repblend.grid import Cell
from repblend.params import read_params
from repblend.report.grid_records import GridRecords
from repblend.report.results import results_text
from repblend.runtime.context import Paths
from repblend.runtime.locked import (
    LOCK,
    Lock,
    check_fit,
    check_outputs,
    difference,
    md5_of_list,
    outdated,
    unfit_records,
)
from repblend.runtime.provenance import provenance
from repblend.stages.pipeline import Context
from repblend.store import read_json, write_json
from tests.locked import name_of, write_lock
from tests.report.synthetic import write_workspace
from tests.tiny import ROOT, tiny_content

CELL = Cell("repblend", 50)
EVALUATED = f"records/evaluate/{CELL}"
METRIC = f"metrics/held-out/{CELL}.json"
OUTS = {"prepare": ["data/prepared", "records/prepare.json"], "distill": ["sets/repblend-50.safetensors"],
        "evaluate": [EVALUATED, METRIC]}
DEPS = {"distill": ["data/prepared/manifest.json"], "evaluate": ["sets/repblend-50.safetensors"]}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with records of a preparation and of one cell, as dvc.lock has them."""
    root = tmp_path_factory.mktemp("recorded") / "workspace"
    (root / "data/prepared").mkdir(parents=True)
    with (root / "params.yaml").open("w") as file:
        YAML().dump(tiny_content(), file)
    params, paths = read_params(root / "params.yaml"), Paths(root)
    write_json(root / "data/prepared/manifest.json", {})
    for stage, cell in (("prepare", None), ("evaluate", CELL)):
        made = provenance(Context(stage, cell, params, paths), [])
        write_json(paths.record(stage, cell), {"provenance": made.to_json()})
    write_json(root / METRIC, {"mean": 23.4})
    (root / "sets").mkdir()
    (root / "sets/repblend-50.safetensors").write_bytes(b"pairs")
    write_lock(root, OUTS, DEPS)
    return root


@pytest.fixture
def workspace(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "workspace"))


def why(root: Path) -> dict[str, str]:
    return outdated(root, Lock.read(root / LOCK), Context.pipeline)


def edit(root: Path, old: str, new: str) -> None:
    text = (root / "params.yaml").read_text()
    assert old in text
    (root / "params.yaml").write_text(text.replace(old, new, 1))


def test_names_are_those_that_dvc_gives() -> None:
    listing = next((ROOT / "artifacts/files/md5").glob("*/*.dir"))
    files = read_json(listing)
    assert md5_of_list({}) == "d751713988987e9331980363e24189ce.dir"
    assert md5_of_list({file["relpath"]: file["md5"] for file in reversed(files)}) == (
        f"{listing.parent.name}{listing.name}")


def test_what_is_as_recorded_passes_and_what_is_not_there_is_no_difference(workspace: Path) -> None:
    check_outputs(workspace, Lock.read(workspace / LOCK))
    assert unfit_records(workspace, Context.pipeline) == {} == why(workspace)
    shutil.rmtree(workspace / EVALUATED)
    check_outputs(workspace, Lock.read(workspace / LOCK))


@pytest.mark.parametrize("file", [METRIC, f"{EVALUATED}/record.json"])
def test_a_number_that_was_changed_by_hand_is_named(workspace: Path, file: str) -> None:
    path = workspace / file
    path.write_text(path.read_text() + " ")
    for reader in GridRecords.of, results_text:
        with pytest.raises(ValueError, match=f"^{Path(file).parent if 'record' in file else file}") as said:
            reader(workspace)
        assert "dvc.lock" in str(said.value) and "repro run" in str(said.value)


def test_a_file_of_a_folder_is_named_where_the_cache_has_its_list(workspace: Path) -> None:
    output = Lock.read(workspace / LOCK).outputs["data/prepared"]
    (workspace / "data/prepared/more.json").touch()
    assert difference(workspace, output) == "data/prepared: one of its 2 files is not what dvc.lock records"
    listing = workspace / ".dvc/cache/files/md5" / output.md5[:2] / output.md5[2:]
    listing.parent.mkdir(parents=True)
    listing.write_text(json.dumps([{"md5": name_of(workspace / "data/prepared/manifest.json"),
                                    "relpath": "manifest.json"}]))
    assert difference(workspace, output) == "data/prepared/more.json: not the file that dvc.lock records"


def test_results_of_other_parameters_are_outdated_and_so_is_what_was_made_of_them(workspace: Path) -> None:
    edit(workspace, "image_size: 32", "image_size: 48")
    assert why(workspace) == {path: "made with other parameters: data" for path in (
        EVALUATED, METRIC, "data/prepared", "records/prepare.json")} | {
        "sets/repblend-50.safetensors": "made with other parameters: data"}
    records = GridRecords.of(workspace)
    assert records.evaluation(str(CELL)) is None and records.dataset() is None and records.sources() == {}
    assert ("Left out, made with other parameters: data: records/evaluate/repblend-50/record.json, "
            "records/prepare.json. `repro run` makes them again.") in results_text(workspace)


def test_results_of_other_inputs_are_outdated(workspace: Path) -> None:
    write_json(workspace / "data/prepared/manifest.json", {"other": "data"})
    reason = "data/prepared/manifest.json is another one since"
    assert why(workspace) == dict.fromkeys([EVALUATED, METRIC, "sets/repblend-50.safetensors"], reason)
    with pytest.raises(ValueError, match=f"{EVALUATED}: {reason}\nThese are results of other parameters or data"):
        check_fit(workspace, Context.pipeline, [workspace / EVALUATED])


def test_a_named_default_changes_nothing_and_another_seed_everything(workspace: Path) -> None:
    edit(workspace, "compute:\n", "compute:\n  compile: false\n")
    assert why(workspace) == {}
    edit(workspace, "seed: 0", "seed: 1")
    assert set(why(workspace).values()) == {"made with other parameters: seed"}


def test_a_record_that_the_lock_does_not_know_is_left_out(workspace: Path) -> None:
    shutil.copytree(workspace / EVALUATED, workspace / "records/evaluate/repblend-8")
    assert unfit_records(workspace, Context.pipeline) == {
        workspace / "records/evaluate/repblend-8/record.json":
            "dvc.lock does not know it: its stage was stopped, or run by hand"}
    with pytest.raises(ValueError, match=r"repblend-8: dvc\.lock does not know it"):
        check_fit(workspace, Context.pipeline, [workspace / "records/evaluate/repblend-8"])


@pytest.mark.parametrize("text", [
    "", "[]", "3", "stages: 3", "schema: '2.0'", "stages: {a: 3}", "stages: {a: {outs: 3}}", "stages: {a: {outs: [3]}}",
    "stages: {a: {outs: [{path: 3, md5: x}]}}", "stages: {a: {outs: [{path: sets}]}}",
    f"stages: {{a: {{outs: [{{path: sets, md5: {'0' * 32}, size: -1}}]}}}}",
    f"stages: {{a: {{outs: [{{path: sets, md5: ../{'0' * 29}}}]}}}}",
    f"stages: {{a: {{outs: [{{path: ../victim.txt, md5: {'0' * 32}}}]}}}}", "stages: " + "[" * 200 + "]" * 200])
def test_a_lock_of_another_form_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(ValueError, match=r"dvc\.lock: expected (DVC's lock file with 'stages'|YAML, with at most)"):
        Lock.read(tmp_path / LOCK)


def test_a_circle_in_a_lock_ends(workspace: Path) -> None:
    write_lock(workspace, OUTS, DEPS | {"distill": [EVALUATED], "prepare": ["sets/repblend-50.safetensors"]})
    assert why(workspace) == {}


def test_made_up_records_without_a_lock_are_shown(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "workspace")
    assert unfit_records(root, Context.pipeline) == {} and GridRecords.of(root).evaluation(str(CELL)) is not None
