"""`import repblend`: the functions of a notebook, against what stage `evaluate` recorded and against each other."""

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch

import repblend
from repblend.data.features import SplitFeatures
from repblend.records.results import Evaluation
from repblend.runtime.context import Paths
from tests.release.conftest import CELL

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples/train.ipynb"


@pytest.fixture(scope="module")
def students(workspace: Path) -> repblend.Students:
    return repblend.train_students(repblend.load_set(Paths(workspace).set(CELL)), workspace)


def test_students_reach_what_stage_evaluate_recorded(workspace: Path, students: repblend.Students) -> None:
    recorded = Evaluation.read(Paths(workspace).record("evaluate", CELL)).protocols.held_out
    found = repblend.evaluate(students)
    assert students.epochs == [seed.epoch for seed in recorded.seeds] and students.name == "repblend-50"
    assert {name: spread.mean for name, spread in found.items()} == recorded.mean.to_json()
    assert {name: spread.std for name, spread in found.items()} == recorded.std.to_json()
    assert len(students.heads.img) == len(students.heads.txt) == len(recorded.seeds)


def test_a_file_and_a_released_folder_are_the_same_set(workspace: Path, released: Path) -> None:
    one, other = repblend.load_set(str(released)), repblend.load_set(Paths(workspace).set(CELL))
    assert torch.equal(one.images, other.images) and torch.equal(one.similarity.matrix(), other.similarity.matrix())
    assert (one.lr_img, one.metadata) == (other.lr_img, other.metadata)


def test_other_images_and_texts_can_be_scored(students: repblend.Students) -> None:
    test = students.scores.splits["test"]
    assert repblend.evaluate(students, test) == repblend.evaluate(students)
    first = int((test.text_to_image < 3).sum())
    few = SplitFeatures(test.images[:3], test.texts[:first], test.text_to_image[:first])
    assert repblend.evaluate(students, few)["ir_at_5"].mean == 100  # of three images


def test_a_comparison_is_paired_by_students(workspace: Path, students: repblend.Students) -> None:
    synthetic = repblend.load_set(Paths(workspace).set(CELL))
    worse = repblend.train_students(replace(synthetic, texts=synthetic.texts.flip(0)), workspace)
    found = repblend.compare(students, worse)
    recalls = [[epoch[student]["mean_recall"] for student in range(3)] for each in (students, worse)
               for epoch in [[each.scores.recalls["test"][each.scores.epochs.index(chosen)][number] for number, chosen
                              in enumerate(each.epochs)]]]
    apart = [one - other for one, other in zip(*recalls, strict=True)]
    assert found.difference == pytest.approx(statistics.fmean(apart))
    assert found.standard_error == pytest.approx(statistics.stdev(apart) / 3**0.5)
    assert str(found) == (f"{found.first.mean:.1f} ± {found.first.std:.1f} against {found.second.mean:.1f} ± "
                          f"{found.second.std:.1f}: {found.difference:+.1f} ± {2 * found.standard_error:.1f}")
    same = repblend.compare(students, students)
    assert same.difference == same.standard_error == 0


def test_threads_are_the_workspaces_meanwhile_and_the_readers_own_after(
        workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, before = [], torch.get_num_threads()

    def look(*_: object) -> None:
        seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        raise ValueError("looked")

    monkeypatch.setattr("repblend.api.evaluate_cell", look)
    torch.set_num_threads(3)
    try:
        with pytest.raises(ValueError, match="looked"):
            repblend.train_students(repblend.load_set(Paths(workspace).set(CELL)), workspace)
        assert seen == [(1, True)] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_what_cannot_be_done_is_said(workspace: Path, tmp_path: Path, students: repblend.Students) -> None:
    with pytest.raises(ValueError, match=r"nothing\.safetensors"):
        repblend.load_set(tmp_path / "nothing.safetensors")
    synthetic = repblend.load_set(Paths(workspace).set(CELL))
    with pytest.raises(ValueError, match="expected 'cell'"):
        repblend.train_students(replace(synthetic, metadata={}), workspace)
    fewer = replace(students, heads=type(students.heads)(students.heads.img[:2], students.heads.txt[:2]))
    with pytest.raises(ValueError, match="3 students of repblend-50 and 2"):
        repblend.compare(students, fewer)
    with pytest.raises(AttributeError, match="expected one of"):
        repblend.no_such_thing  # noqa: B018


def test_importing_the_package_brings_no_torch() -> None:
    code = "import sys, repblend; dir(repblend); print('torch' in sys.modules, repblend.__all__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=True)
    assert done.stdout == f"False {repblend.__all__}\n"


def test_every_public_name_is_documented() -> None:
    assert set(repblend.__all__) == set(repblend.api.__all__) <= set(dir(repblend))
    assert all(getattr(repblend, name).__doc__ for name in repblend.__all__)


def test_the_notebook_runs_on_a_workspace_and_keeps_no_output(workspace: Path, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    lines = [line for cell in cells for line in cell.source.splitlines() if line.strip()]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells) and len(lines) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for line in cells:
        source = line.source.replace('WORKSPACE = ".."', f"WORKSPACE = {json.dumps(str(workspace))}")
        exec(source.replace("repblend-100", str(CELL)).replace("random-100", str(CELL)), names)
    told = capsys.readouterr().out
    assert str(repblend.evaluate(names["students"])["mean_recall"]) in told and "+0.0 ± 0.0" in told
