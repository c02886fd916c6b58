"""The entry of all stages: errors are one line, name the file, and nothing runs before the parameters are right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def stage(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "repblend.stages", *arguments], cwd=folder, capture_output=True,
                          text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})


@pytest.mark.parametrize("arguments", [(), ("bake",), ("distill", "a-1", "more")])
def test_a_wrong_call_shows_the_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = stage(tmp_path, *arguments)
    assert done.returncode == 2 and "usage: python -m repblend.stages" in done.stderr


def test_a_wrong_parameter_stops_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("seed: 0", "seed: zero"))
    done = stage(tmp_path, "prepare")
    assert done.returncode == 1
    assert "params.yaml: 1 parameter(s) to mend" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(("arguments", "words"), [
    (("encode",), "openmoji_train.json: no such file"),
    (("experts",), "no such file"),
    (("distill", "nonsense-50"), "method 'nonsense' is not known"),
    (("distill", "repblend-7"), "distill.cells has no 'repblend-7'"),
    (("select", "random50"), "expected <method>-<budget>"),
    (("evaluate", "random-50"), "no such file"),
])
def test_a_missing_input_or_unknown_cell_is_named(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = stage(tmp_path, *arguments)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "metrics").exists()
