"""Outputs are made by the workspace's own sources, and by one version of them and of the parameters."""

import datetime
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from repblend.grid import Cell
from repblend.params import Params, read_params
from repblend.runtime import settings as module
from repblend.runtime.context import Paths
from repblend.runtime.provenance import (
    check_sources_are_the_workspaces,
    note_run,
    provenance,
    read_runs,
    refuse_edits,
    work_fingerprint,
)
from repblend.runtime.settings import Settings, check_written, write_settings
from repblend.runtime.sources import code_sha256
from repblend.stages.pipeline import Context
from repblend.store import folder_sha256

ROOT = Path(__file__).parents[2]


def context(folder: Path, cell: str = "repblend-50") -> Context:
    if not (folder / "params.yaml").exists():
        shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    return Context("distill", Cell.parse(cell), read_params(folder / "params.yaml"), Paths(folder))


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "params.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


EDITS = [("width: 256", "width: 128", True), ("seed: 0", "seed: 1", True),
         ("    repblend-50: {}", "    repblend-50: {iterations: 7}", True),
         ("    repblend-100: {}", "    repblend-100: {iterations: 7}", False),
         ("num_icons: 300", "num_icons: 30", False)]


def test_every_stage_and_cell_of_the_grid_has_a_file_with_all_defaults(tmp_path: Path) -> None:
    context(tmp_path)
    write_settings(Context.pipeline, tmp_path)
    written = {str(path.relative_to(tmp_path / "settings")): Settings.read(path)
               for path in (tmp_path / "settings").rglob("*.json")}
    assert len(written) == 5 + 1 + 6 + 4 + 10 - 1 and "evaluate/k-center-100.json" in written
    for name, found in written.items():
        assert name == (f"{found.stage}/{found.cell}.json" if found.cell else f"{found.stage}.json")
        assert found.seed == 0 and len(found.sources) > 1 and set(found.parameters) == set(
            Context.pipeline.stages[found.stage].sections)
    distill = written["distill/repblend-100.json"]
    assert distill.parameters["distill"]["choose"] == "best-validation"
    assert distill.parameters["compute"] == {"threads": 2, "encoder_chunk": 20, "device": "cpu",
                                             "arithmetic": "float32", "compile": False}
    assert distill.sources["src/repblend/store.py"] == code_sha256(ROOT / "src/repblend/store.py")
    (tmp_path / "settings/leftover.json").touch()
    write_settings(Context.pipeline, tmp_path)
    assert not (tmp_path / "settings/leftover.json").exists()


def test_a_cell_of_the_grid_without_settings_is_named(tmp_path: Path) -> None:
    context(tmp_path)
    edit(tmp_path, "budgets: [50, 100]", "budgets: [50, 60]")
    with pytest.raises(ValueError, match=r"distill\.cells has no 'repblend-60'"):
        write_settings(Context.pipeline, tmp_path)
    assert not (tmp_path / "settings").exists()


def test_a_workspaces_environment_counts_and_caches_do_not(tmp_path: Path) -> None:
    for name in ("docker/contents.json", "requirements/lock.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    assert set(context(tmp_path).settings.environment) == {"docker/contents.json", "requirements/lock.txt"}
    wing = tmp_path / "wing"
    (wing / "__pycache__").mkdir(parents=True)
    (wing / "a.py").write_text("a = 1")
    before = code_sha256(wing)
    (wing / "__pycache__/a.pyc").write_text("b")
    (wing / "README.md").write_text("of a wing")
    assert code_sha256(wing) == before
    (wing / "a.py").rename(wing / "b.py")
    assert code_sha256(wing) != before


@pytest.mark.parametrize(("old", "new", "refused"), EDITS)
def test_only_parameters_of_the_stage_and_cell_matter(tmp_path: Path, old: str, new: str, refused: bool) -> None:
    started = context(tmp_path)
    assert started.settings
    refuse_edits(started)
    edit(tmp_path, old, new)
    if not refused:
        refuse_edits(started)
        return
    with pytest.raises(ValueError, match=r"^params\.yaml: edited while stage distill@repblend-50 ran"):
        refuse_edits(started)


@pytest.mark.parametrize(("source", "refused"), [("matching", True), ("store.py", True), ("report", False),
                                                 ("ufc", False)])
def test_a_source_edited_meanwhile_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str,
                                                      refused: bool) -> None:
    started = context(tmp_path)
    assert started.settings

    def edited(path: Path) -> str:
        return "0" * 64 if path == module.PACKAGE / source else code_sha256(path)

    monkeypatch.setattr(module, "code_sha256", edited)
    if not refused:
        refuse_edits(started)
        return
    with pytest.raises(ValueError, match=rf"^src/repblend/{source}: edited while stage distill@repblend-50 ran"):
        refuse_edits(started)


@pytest.mark.parametrize(("old", "new", "refused"), EDITS)
def test_a_stage_refuses_to_start_when_its_file_says_otherwise(tmp_path: Path, old: str, new: str,
                                                               refused: bool) -> None:
    before = context(tmp_path)
    path = before.paths.settings("distill", before.cell)
    check_written(before.settings, path, before.name)  # no file yet: run by hand, it starts
    write_settings(Context.pipeline, tmp_path)
    check_written(before.settings, path, before.name)
    edit(tmp_path, old, new)
    if not refused:
        check_written(context(tmp_path).settings, path, before.name)
        return
    with pytest.raises(ValueError, match=r"repblend-50\.json: .* params\.yaml was edited .*`repro run`"):
        check_written(context(tmp_path).settings, path, before.name)


def test_another_cells_parameters_show_nowhere_in_this_cells_files(tmp_path: Path) -> None:
    def traces(cell: str) -> tuple[dict[str, Any], str]:
        found = context(tmp_path, cell)
        return provenance(found, []).to_json(), work_fingerprint(found, [])

    before = traces("repblend-50"), traces("repblend-100")
    edit(tmp_path, "    repblend-100: {}", "    repblend-100: {iterations: 7}")
    after = traces("repblend-50"), traces("repblend-100")
    assert after[0] == before[0]
    assert after[1][1] != before[1][1] and after[1][0]["parameters"]["distill"]["iterations"] == 7


def test_unfinished_work_is_known_by_its_inputs(tmp_path: Path) -> None:
    found = context(tmp_path)
    before = work_fingerprint(found, [found.paths.params])
    edit(tmp_path, "# Everything", "# All")
    assert work_fingerprint(found, [found.paths.params]) != before


def test_the_sources_of_another_clone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "src" / "repblend").mkdir(parents=True)
    with pytest.raises(ValueError, match="this clone has sources of its own, but `repblend` was imported from"):
        check_sources_are_the_workspaces(tmp_path)
    done = subprocess.run([sys.executable, "-m", "repblend.stages", "prepare"], cwd=tmp_path, capture_output=True,
                          text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 1 and "make install" in done.stderr and "Traceback" not in done.stderr


def test_the_workspaces_own_sources_are_fine(tmp_path: Path) -> None:
    check_sources_are_the_workspaces(ROOT)
    check_sources_are_the_workspaces(tmp_path)
    linked = tmp_path / "linked"
    linked.symlink_to(ROOT)
    check_sources_are_the_workspaces(linked)


def test_every_section_of_the_parameters_is_of_some_stage() -> None:
    declared = {section for stage in Context.pipeline.stages.values() for section in stage.sections}
    assert declared == set(Params.model_fields) - {"seed"}


def test_runs_has_one_line_per_stage_whoever_writes_at_once(tmp_path: Path) -> None:
    started = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    contexts = [context(tmp_path, f"repblend-{budget}") for budget in (50, 100)] + [
        Context("encode", None, read_params(ROOT / "params.yaml"), Paths(tmp_path))]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda each: note_run(*each), [(each, started, seconds) for each in contexts
                                                        for seconds in (1.0, 2.0, 3.0)]))
    runs = read_runs(tmp_path / "runs.jsonl")
    assert [run.stage for run in runs] == ["distill@repblend-100", "distill@repblend-50", "encode"]
    for run in runs:
        assert run.started == "2026-01-02T00:00:00+00:00" and run.wall_seconds in (1, 2, 3)
        assert run.peak_memory_mib > 10 and run.machine.processor and run.commit is None and run.gpu is None
    assert not any(run.resumed for run in runs) and {run.beside for run in runs} == {1}
    note_run(contexts[0], started, 7, resumed=True)
    assert [run.stage for run in read_runs(tmp_path / "runs.jsonl") if run.resumed] == ["distill@repblend-50"]
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [line["wall_seconds"] for line in lines if line["stage"] == "distill@repblend-50"] == [7.0]
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write("half a li")
    with pytest.raises(ValueError, match=r"runs\.jsonl, line 4: expected the record of a run"):
        read_runs(tmp_path / "runs.jsonl")


@pytest.mark.parametrize(("old", "new", "files"), [
    ("    repblend-100: {}", "    repblend-100: {iterations: 7}", {"distill/repblend-100.json"}),
    ("num_icons: 300", "num_icons: 30", set()),
    ("forgetting_epochs: 10", "forgetting_epochs: 9",
     {f"select/{method}-{budget}.json" for method in ("random", "herding", "k-center") for budget in (50, 100)}),
])
def test_an_edited_parameter_changes_the_files_of_those_who_use_it(tmp_path: Path, old: str, new: str,
                                                                   files: set[str]) -> None:
    def written() -> dict[str, str]:
        write_settings(Context.pipeline, tmp_path)
        return folder_sha256(tmp_path / "settings")

    context(tmp_path)
    before = written()
    edit(tmp_path, old, new)
    after = written()
    assert {name for name, digest in after.items() if digest != before[name]} == files


@pytest.mark.parametrize(("source", "files"), [
    ("report", {"report.json"}), ("stages/prepare.py", {"prepare.json"}), ("ufc", set())])
def test_an_edited_source_changes_the_files_of_those_it_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                   source: str, files: set[str]) -> None:
    context(tmp_path)
    write_settings(Context.pipeline, tmp_path)
    before = folder_sha256(tmp_path / "settings")
    monkeypatch.setattr(module, "code_sha256",
                        lambda path: "0" * 64 if path == module.PACKAGE / source else code_sha256(path))
    write_settings(Context.pipeline, tmp_path)
    after = folder_sha256(tmp_path / "settings")
    assert {name for name, digest in after.items() if digest != before[name]} == files
