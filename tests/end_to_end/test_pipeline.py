"""The whole pipeline on a tiny grid: results, no work twice, one cell at a time, verification."""

import json
import re
from pathlib import Path

from tests.end_to_end.workspace import CELLS, Workspace

OUTPUTS = ("data", "features", "experts", "encoder-experts", "sets", "metrics", "paper")


def ran(output: str) -> list[str]:
    """Names of the stages that DVC ran."""
    return re.findall(r"Running stage '([^']+)'", output)


def test_the_run_prints_both_tables_and_the_report_is_there(finished: Workspace) -> None:
    output = finished.output() if "Report: " in finished.output() else finished.run("-m", "repro", "run")
    assert "epoch chosen on validation" in output and "best of the scored epochs on that same split" in output
    for row in ("Random", "RepBlend without RB", "LoRS", "Full training set", "Chance"):
        assert row in output
    assert (finished.folder / "paper" / "report.html").stat().st_size > 100_000


def test_every_metrics_file_says_where_it_comes_from(finished: Workspace) -> None:
    files = [path for path in (finished.folder / "metrics").rglob("*.json") if "runs" not in path.parts]
    assert len(files) >= 11
    for path in files:
        provenance = json.loads(path.read_text())["provenance"]
        assert {"stage", "seed", "parameters", "libraries", "requirements_sha256", "threads", "device", "inputs",
                "command", "run"} <= provenance.keys(), path
        record = json.loads((finished.folder / provenance["run"]).read_text())
        assert {"commit", "dirty", "image_digest", "wall_seconds", "peak_memory_mib", "machine"} <= record.keys()
        assert record["wall_seconds"] > 0 and 10 < record["peak_memory_mib"] < 4096


def test_a_second_run_does_nothing(finished: Workspace) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished.folder / "metrics").rglob("*.json")}
    assert ran(finished.run("-m", "repro", "run")) == []
    assert before == {path: path.stat().st_mtime_ns for path in (finished.folder / "metrics").rglob("*.json")}


def test_changing_one_cell_reruns_that_cell_and_what_needs_it(copy: Workspace) -> None:
    copy.change({"distill": {"cells": CELLS | {"repblend-8": {"initial_lr_img": 0.1}}}})
    assert ran(copy.run("-m", "repro", "run")) == ["distill@repblend-8", "evaluate-distilled@repblend-8", "report"]


def test_the_report_needs_nothing_but_metrics(copy: Workspace) -> None:
    before = copy.hashes("paper")
    for name in ("data", "features", "experts", "sets", "paper/report.html", "paper/tables", "paper/figures"):
        _remove(copy.folder / name)
    _remove(copy.folder / ".dvc" / "cache")
    assert ran(copy.run("-m", "repro", "report", PYTHONHASHSEED="5", TZ="Asia/Tokyo", LC_ALL="C")) == ["report"]
    assert copy.hashes("paper") == before


def test_verify_gives_the_same_bytes_in_another_place_and_notices_a_wrong_lock(copy: Workspace) -> None:
    source = copy.folder / "src/repblend/stages/prepare.py"
    committed = source.read_text()
    source.write_text("raise SystemExit('not what was committed')\n")
    output = copy.run("-m", "repro", "verify", PYTHONHASHSEED="9")
    assert re.search(r"\n(\d+) outputs compared, 0 not the same", output)
    assert int(re.search(r"(\d+) outputs compared", output)[1]) >= 20
    assert "M src/repblend/stages/prepare.py" in output
    source.write_text(committed)
    lock = copy.folder / "dvc.lock"
    found = re.search(r"path: features\n.*?md5: (\w+)", lock.read_text(), re.DOTALL)[1]
    lock.write_text(lock.read_text().replace(found, "0" * 32 + ".dir"))
    copy.commit("Tamper")
    output = copy.run("-m", "repro", "verify", "encode", expect=1)
    assert "DIFFERS  features" in output and "same     data/prepared" in output
    assert "1 not the same" in output


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
