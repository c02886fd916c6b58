"""The benchmark of the published inner loop runs where nothing but its few packages is, and says what it measured."""

import json
from pathlib import Path

import pytest

from benchmarks import published_loop

pytestmark = pytest.mark.gpu


def test_it_prints_a_table_and_writes_the_same_numbers(tmp_path: Path, capsys: pytest.CaptureFixture,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "result.json"
    small = ["--pairs", "20", "--image-size", "32", "--rounds", "1", "--threads", "1", "--compile", "0"]
    assert published_loop.main([str(path), *small, "--arithmetic", "float32", "bf16"]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [(row["method"], row["arithmetic"]) for row in rows] == [
        (method, arithmetic) for arithmetic in ("float32", "bf16") for method in ("bound", "repblend", "lors")]
    assert all(row["seconds"] > 0 for row in rows)
    bound, repblend = rows[0]["seconds"], rows[1]["seconds"]
    assert f"{repblend:.3f} s {repblend / bound:6.2f} x bound" in capsys.readouterr().out
