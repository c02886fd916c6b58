"""The whole pipeline on a tiny grid: results, no work twice, one cell at a time, verification."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repblend.records.base import Provenance
from repblend.records.outputs import Distilled
from repblend.records.results import Evaluation
from repblend.runtime.provenance import read_runs
from tests import forked
from tests.end_to_end.workspace import CELLS, ROOT, Workspace

pytestmark = pytest.mark.runs


def ran(output: str) -> list[str]:
    """Names of the stages that DVC ran."""
    return [name.replace(" ", "@") for name in re.findall(r"^Stage \d+ of \d+, ([^:\n]+)", output, re.M)]


def test_a_second_run_does_nothing_and_says_that_results_are_those_of_the_commit(finished: Workspace) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for name in ("records", "metrics", "settings")
                for path in (finished.folder / name).rglob("*")}

    before = times()
    output = finished.run("-m", "repro", "run")
    assert ran(output) == [] and before == times() and "No stage had to run again" in output
    assert "are those that were computed here" in output
    for row in ("random-8", "repblend-8", "lors-8", "full-data", "chance"):
        assert re.search(rf"^{row} .* the same$", output, re.M)
    assert f"Report: {finished.folder / 'paper/report.html'}" in output
    assert (finished.folder / "paper" / "report.html").stat().st_size > 100_000


def test_every_record_says_where_it_comes_from_and_its_run_is_recorded(finished: Workspace) -> None:
    files = [*(finished.folder / "records").rglob("record.json"), *(finished.folder / "records").glob("*.json")]
    assert len(files) == 4 + 1 + 3 + 5 + 3 + 3 + 3
    runs = {run.stage: run for run in read_runs(finished.folder / "runs.jsonl")}
    for path in files:
        made = Provenance.model_validate(json.loads(path.read_text())["provenance"])
        assert made.requirements_sha256 and made.libraries["torch"] and made.parameters["compute"]["threads"] == 1
        assert made.inputs or made.stage == "prepare"
        run = runs[f"{made.stage}@{made.cell}" if made.cell else made.stage]
        assert run.commit and run.image_digest is None and run.machine.cores
        assert run.wall_seconds > 0 and 10 < run.peak_memory_mib < 4096


def test_metrics_are_short_and_flat_and_curves_lie_beside_records(finished: Workspace) -> None:
    keys = [name + suffix for name in ("mean", "ir1", "ir5", "ir10", "tr1", "tr5", "tr10") for suffix in ("", "_std")]
    files = sorted((finished.folder / "metrics").rglob("*.json"))
    assert {path.parent.name for path in files} == {"held-out", "faithful"} and len(files) == 2 * (5 + 3)
    for path in files:
        values = json.loads(path.read_text())
        assert sorted(values) == sorted(key for key in keys if path.stem != "chance" or "std" not in key)
        assert all(round(value, 4) == value for value in values.values())
    record = Evaluation.read(finished.folder / "records/evaluate/repblend-8/record.json")
    lines = (finished.folder / "records/evaluate/repblend-8/recall.csv").read_text().splitlines()
    assert lines[0] == "epoch,val_mean_recall,test_mean_recall"
    assert [int(line.split(",")[0]) for line in lines[1:]] == record.scored_epochs
    folder = finished.folder / "records/distill/repblend-8"
    found = Distilled.read(folder / "record.json")
    losses = [line.split(",")[:2] for line in (folder / "loss.csv").read_text().splitlines()]
    assert losses[0] == ["iteration", "matching_loss"]
    assert [float(loss) for _, loss in losses[1:]] == found.course.curves.matching_loss
    assert np.load(folder / "similarity.npy").shape == (found.num_pairs, found.num_pairs) == (7, 7)
    for specimen in found.specimens:
        for name in (specimen.initial_png, specimen.distilled_png):
            with Image.open(folder / name) as picture:
                assert picture.size == (32, 32)


def test_changes_rerun_what_is_made_of_them_and_what_needs_that(copy: Workspace) -> None:
    copy.change({"distill": {"cells": CELLS | {"repblend-8": {"initial_lr_img": 0.1}}}})
    copy.edit(*(f"src/repblend/{source}" for source in ("report/page.py", "stages/prepare.py", "ufc/networks.py")))
    copy.edit("src/repblend/encoders/image.py", "src/repblend/data/features.py", line="# What all stages are made of.")
    assert sorted(ran(copy.run_forked("run", figures=1))) == [
        "distill@repblend-8", "embed-distilled@repblend-8", "evaluate-distilled@repblend-8", "prepare", "report",
        "settings", "transfer-distilled@repblend-8"]


def test_the_report_needs_nothing_but_records(copy: Workspace) -> None:
    before = copy.hashes("paper")
    for name in ("data", "features", "experts", "sets", "paper/report.html", "paper/tables", "paper/figures"):
        _remove(copy.folder / name)
    _remove(copy.folder / ".dvc" / "cache")
    assert ran(copy.run("-m", "repro", "report", PYTHONHASHSEED="5", TZ="Asia/Tokyo", LC_ALL="C")) == ["report"]
    assert copy.hashes("paper") == before


def test_a_set_is_exported_where_captions_have_to_be_made_first_and_opens_as_the_documents_say(
        copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data", "features"):
        _remove(copy.folder / name)
    output = copy.run("-m", "repro", "export", "repblend-8", "exported")
    assert "The captions that a release names are not here: they are made first." in output
    assert f"Released: {copy.folder / 'exported'}" in output
    monkeypatch.setenv("HF_HOME", str(copy.folder / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    example = re.search(r"^```python\n(.*?)^```", (ROOT / "repro/README.md").read_text(), re.M | re.S)[1]
    names: dict = {}
    exec(example.replace("FOLDER", str(copy.folder / "exported")), names)
    assert len(names["pairs"]) == 7


def test_verify_gives_the_same_bytes_in_another_place_and_notices_a_wrong_lock(copy: Workspace) -> None:
    lock = copy.folder / "dvc.lock"
    found = re.search(r"path: features\n.*?md5: (\w+)", lock.read_text(), re.DOTALL)[1]
    lock.write_text(lock.read_text().replace(found, "0" * 32))
    copy.commit("Tamper")
    (copy.folder / "src/repblend/stages/prepare.py").write_text("raise SystemExit('not what was committed')\n")
    code, output = forked.repro_anew(copy.folder, "verify", interpreted=["prepare"], PYTHONHASHSEED="9")
    assert code == 1, output
    assert "M src/repblend/stages/prepare.py" in output
    compared = int(re.search(r"\n(\d+) outputs compared, 1 not the same", output)[1])
    assert compared >= 20 and output.count("\nsame     ") == compared - 1
    assert f"DIFFERS  features (stage encode: expected {'0' * 32}.dir, found {found}.dir)" in output


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
