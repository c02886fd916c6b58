"""The entry of all stages: errors are one line, name the file, and nothing runs before the parameters are right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from repblend.runtime.harness import main
from repblend.stages.__main__ import USAGE
from repblend.stages.pipeline import Context

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a workspace that has nothing but parameters."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("threads: 2", "threads: 1"))
    return tmp_path


def test_a_module_of_stages_runs_as_a_command(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "repblend.stages", "bake"], cwd=tmp_path, capture_output=True,
                          text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 2 and done.stderr.startswith("usage: python -m repblend.stages {settings,prepare,encode")


@pytest.mark.parametrize("arguments", [(), ("bake",), ("report",), ("distill", "a-1", "more"),
                                       ("experts", "--only", "-1"), ("distill", "a-1", "b", "--only", "0")])
def test_a_wrong_call_shows_the_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(Context, USAGE, arguments) == 2 and capsys.readouterr().err == f"{USAGE}\n"


@pytest.mark.parametrize("stage", ["settings", "prepare"])
def test_a_wrong_parameter_stops_before_anything_is_written(workspace: Path, stage: str,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("seed: 0", "seed: zero"))
    assert main(Context, USAGE, [stage]) == 1
    assert "params.yaml: 1 parameter(s) to mend" in capsys.readouterr().err
    assert [path.name for path in workspace.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(("arguments", "words"), [
    (("encode",), "openmoji_train.json: no such file"),
    (("experts",), "no such file"),
    (("experts", "--only", "7"), "no such file"),
    (("experts", "--only", "10"), "stage experts has 10 parts that can be done alone"),
    (("prepare", "--only", "0"), "stage prepare has no parts that can be done alone"),
    (("distill", "nonsense-50"), "method 'nonsense' is not known"),
    (("distill", "repblend-7"), "distill.cells has no 'repblend-7'"),
    (("select", "random50"), "expected <method>-<budget>"),
    (("evaluate", "random-50"), "no such file"),
])
def test_a_missing_input_or_unknown_cell_is_named(workspace: Path, arguments: tuple[str, ...], words: str,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    assert main(Context, USAGE, arguments) == 1 and words in capsys.readouterr().err
    assert not (workspace / "records").exists() and not (workspace / "runs.jsonl").exists()


def imported(*modules: str) -> set[str]:
    """What a fresh process has imported after these modules."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    return set(done.stdout.split())


def test_torch_is_imported_after_the_process_was_prepared_for_it() -> None:
    loaded = imported("repblend.stages.__main__", "repblend.ufc.stages.__main__")
    assert "repblend.runtime.harness" in loaded and "torch" not in loaded


def test_stages_start_without_the_libraries_of_encoders() -> None:
    loaded = imported(*(f"repblend.stages.{stage.replace('-', '_')}" for stage in Context.pipeline.names[1:]))
    assert "torch" in loaded and not {"timm", "torchvision", "transformers", "open_clip", "torch._dynamo"} & loaded
