"""Outputs are made by the workspace's own sources, and by one version of them and of the parameters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repblend.params import Params, read_params
from repblend.stages.context import Cell, Paths, StageContext
from repblend.stages.provenance import provenance
from repblend.stages.resume import work_fingerprint
from repblend.stages.sources import check_sources_are_the_workspaces, refuse_edits, source_hashes

ROOT = Path(__file__).parents[2]


def context(folder: Path, cell: str = "repblend-50") -> StageContext:
    if not (folder / "params.yaml").exists():
        shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    return StageContext("distill", Cell.parse(cell), read_params(folder / "params.yaml"), Paths(folder))


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "params.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_nothing_is_refused_when_nothing_changed(tmp_path: Path) -> None:
    refuse_edits(context(tmp_path), ["distill", "heads"], source_hashes())


def test_an_imported_source_edited_meanwhile_is_refused_by_name(tmp_path: Path) -> None:
    before = source_hashes() | {"store.py": "0" * 64}
    with pytest.raises(ValueError, match=r"^store\.py: edited while stage distill@repblend-50 ran"):
        refuse_edits(context(tmp_path), ["heads"], before)


def test_a_source_that_was_not_imported_may_change(tmp_path: Path) -> None:
    refuse_edits(context(tmp_path), ["heads"], source_hashes() | {"not/imported.py": "0" * 64})


@pytest.mark.parametrize(("old", "new", "refused"), [
    ("width: 256", "width: 128", True),
    ("seed: 0", "seed: 1", True),
    ("    repblend-50: {}", "    repblend-50: {iterations: 7}", True),
    ("    repblend-100: {}", "    repblend-100: {iterations: 7}", False),
    ("num_val: 200", "num_val: 100", False),
])
def test_only_parameters_of_the_stage_and_cell_matter(tmp_path: Path, old: str, new: str, refused: bool) -> None:
    started, before = context(tmp_path), source_hashes()
    edit(tmp_path, old, new)
    if not refused:
        refuse_edits(started, ["heads", "distill"], before)
        return
    with pytest.raises(ValueError, match=r"^params\.yaml: edited while stage distill@repblend-50 ran"):
        refuse_edits(started, ["heads", "distill"], before)


def test_another_cells_parameters_show_nowhere_in_this_cells_files(tmp_path: Path) -> None:
    def traces(cell: str) -> tuple[dict, str]:
        found = context(tmp_path, cell)
        return provenance(found, ["distill"], []), work_fingerprint(found, ["distill"], [])

    before = traces("repblend-50"), traces("repblend-100")
    edit(tmp_path, "    repblend-100: {}", "    repblend-100: {iterations: 7}")
    after = traces("repblend-50"), traces("repblend-100")
    assert after[0] == before[0]
    assert after[1][1] != before[1][1] and after[1][0]["parameters"]["distill"]["iterations"] == 7


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


def test_every_section_of_the_parameters_can_be_asked_for(tmp_path: Path) -> None:
    found = context(tmp_path)
    for name in set(Params.model_fields) - {"seed"}:
        assert set(found.parameters([name])) == {name}
