"""The `repro` command: every verb explains itself, none imports torch, errors are sentences."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from repro.cli import app
from repro.workspace import environment, find_root, workspace_environment

ROOT = Path(__file__).parents[2]
COMMANDS = ("checkpoints", "cluster", "compare", "data", "doctor", "export", "image", "jobs", "new", "parity", "plan",
            "profile", "pull", "push", "rehearse", "report", "run", "tune", "verify")


def test_help_names_every_command() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    assert all(command in output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0 and len(result.output.split()) > 12


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["reproduce"]).exit_code == 2


@pytest.mark.parametrize(("modules", "never"), [
    ("repro.cli", {"numpy", "pydantic", "rich", "ruamel", "psutil"}),
    ("repro.run, repro.verify, repro.profiles, repro.artifacts.pull, repro.fetch.datasets", {"hydra", "jinja2"})])
def test_what_is_slow_to_import_comes_only_with_what_needs_it(modules: str, never: set[str]) -> None:
    never |= {"torch", "matplotlib", "transformers", "timm", "docker", "dvc"}
    done = subprocess.run([sys.executable, "-c", f"import sys, {modules}; print(sorted({never} & sys.modules.keys()))"],
                          cwd=ROOT, capture_output=True, text=True, check=True, env=workspace_environment(ROOT))
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", ["doctor", "profile", "run", "report", "verify", "pull", "push"])
def test_outside_a_workspace_the_error_says_so(command: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "repro", command], cwd=tmp_path, capture_output=True, text=True,
                          check=False, env=workspace_environment(ROOT))
    assert done.returncode == 1 and "Run this in a clone of the repository" in done.stderr
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


def test_parity_passes_the_exit_code_on(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "repro", "parity", tmp_path / "absent.npz"], cwd=tmp_path,
                          capture_output=True, text=True, check=False, env=workspace_environment(ROOT))
    assert done.returncode == 2 and "absent.npz" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_root_is_found_from_below(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    below = tmp_path / "a folder" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_root() == tmp_path


def test_stages_run_this_python_and_the_workspaces_own_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    found = workspace_environment(Path("/a clone"))
    assert found["PYTHONPATH"].split(os.pathsep) == ["/a clone/src", "/a clone", "/elsewhere"]
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert found["HF_HUB_OFFLINE"] == environment()["HF_HUB_OFFLINE"] == "1"
