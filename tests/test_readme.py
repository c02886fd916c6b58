"""README.md is true: its links, its commands, its dependencies, and its numbers."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import benchmarks.__main__ as bench
from benchmarks import efficiency
from repblend.encoders.pins import CHECKPOINTS
from repblend.encoders.registry import IMAGE_ENCODERS
from repblend.report.metrics import Metrics
from repblend.report.schema_wider import Efficiency
from repblend.report.titles import title
from repro.cli import app
from repro.image_cli import app as image_app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
LOCKS = ("requirements/lock.txt", "requirements/tools.txt")
DOCUMENTS = ("README.md", "paper/FINDINGS.md", "tests/parity/recordings/README.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_relative_link_exists(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text())
    missing = [link for link in links if "://" not in link and not ((ROOT / name).parent / link).exists()]
    assert missing == []


def test_nothing_is_left_to_fill_in() -> None:
    assert re.findall(r"@[A-Z]+@|TO-MEASURE|TODO", README) == []


def test_the_repro_commands_are_the_documented_ones() -> None:
    documented = set(re.findall(r"^\| `repro (\w+)", README, re.MULTILINE))
    assert documented == {entry.name for entry in (*app.registered_commands, *app.registered_groups)}
    assert set(re.findall(r"`(?:\.venv/bin/)?repro (\w+)", README)) <= documented


def test_the_commands_for_the_image_are_the_documented_ones() -> None:
    section = README.split("## The image")[1].split("\n## ")[0]
    commands = [shlex.split(line, comments=True) for line in re.findall(r"^repro image .*$", section, re.MULTILINE)]
    assert {command[2] for command in commands} == {command.name for command in image_app.registered_commands}
    for command in commands:
        result = CliRunner().invoke(app, [*command[1:], "--help"])
        assert result.exit_code == 0, result.output  # an unknown option is an error even so


def test_the_commands_for_checkpoints_are_the_documented_ones() -> None:
    section = README.split("## Other encoders")[1].split("\n## ")[0]
    commands = [shlex.split(line, comments=True) for line in re.findall(r"^repro checkpoints .*$", section, re.M)]
    assert {command[2] for command in commands} == {"--profile", "list", "fetch", "check"}
    for command in commands:
        result = CliRunner().invoke(app, [*command[1:], "--help"])
        assert result.exit_code == 0, result.output


def test_the_table_of_encoders_is_what_is_declared() -> None:
    section = README.split("## Other encoders")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")] for row in re.findall(r"^\| (`.+) \|$", section, re.M)]
    assert {row[0].strip("`") for row in rows} == CHECKPOINTS.keys()
    for name, _, features, size, license_, pinned in rows:
        checkpoint = CHECKPOINTS[name.strip("`")]
        assert size == f"{checkpoint.num_bytes / 1e6:.0f} MB" and license_ == checkpoint.license
        assert pinned == ("here" if checkpoint.is_pinned else "by the first fetch")
        entry = IMAGE_ENCODERS.get(name.strip("`"))
        assert int(features) == (entry.feature_dim if entry else 768)


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", f"PYTHON={sys.executable}", *arguments], cwd=folder, capture_output=True, text=True,
                          check=False)


@pytest.mark.parametrize(("target", "recipe"), [
    ("reproduce", "repro run"), ("test", "python -m pytest"),
    ("test-image", "python -m pytest -m image -s tests/container"), ("bench", "python -m benchmarks"),
    ("lint", "ruff check .")])
def test_make_runs_what_the_readme_says_after_setting_up(target: str, recipe: str, tmp_path: Path) -> None:
    assert f"make {target}" in README
    for name in ("Makefile", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "requirements").mkdir()
    for name in LOCKS:
        shutil.copyfile(ROOT / name, tmp_path / name)
    fresh = make(tmp_path, "--dry-run", target).stdout
    assert "-m venv --clear .venv\n.venv/bin/python -m pip install" in fresh
    assert "--require-hashes -r requirements/lock.txt" in fresh and recipe in fresh
    assert "--require-hashes --no-deps -r requirements/tools.txt" in fresh
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.installed").touch()
    again = make(tmp_path, "--dry-run", target).stdout
    assert "venv --clear" not in again and recipe in again


def test_the_style_is_clean() -> None:
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout


def test_the_recordings_agree_by_the_documented_command() -> None:
    recordings = sorted((ROOT / "tests/parity/recordings").glob("*.npz"))
    done = subprocess.run([sys.executable, "-m", "repro", "parity", *recordings], cwd=ROOT, capture_output=True,
                          text=True, check=False, env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(recordings)} recordings, 0 arrays out of tolerance" in done.stdout


def test_the_benchmark_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(bench, "SIZES", (32,))
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "THREADS", 1)
    bench.main()
    printed = capsys.readouterr().out
    for name in ("lower bound", "encode once", "two passes, encoder as it comes", "five at once"):
        assert re.search(rf"  {name}.*\d\.\d{{3}}", printed), printed


@pytest.mark.parametrize("method", efficiency.METHODS)
def test_the_benchmark_of_efficiency_measures_every_method(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("IMAGE_SIZE", 32), ("BUDGET", 24), ("NUM_PAIRS", 128), ("THREADS", 1)):
        monkeypatch.setattr(efficiency, name, value)
    costs = efficiency.measure(method, rounds=1)
    Efficiency.model_validate({"machine": "test", "threads": 1, "budget": 24, "image_size": 32,
                               "methods": {method: costs}})
    snapshot_bytes = 4 * (1280 * 256 + 256 * 256 + 384 * 256 + 256 * 256 + 8 * 256 if method == "repblend" else
                          3_350_000 + 384 * 1280 + 1280 * 1280 + 4 * 1280)
    assert costs["trajectory_bytes"] == snapshot_bytes * (16 // 20 + 1)  # 16 steps, a snapshot every 20


def test_the_dependency_table_is_the_requirements_file() -> None:
    required = {name for file in ("requirements.in", "tools.in") for name in re.findall(
        r"^([A-Za-z0-9_.-]+)", (ROOT / "requirements" / file).read_text(), re.MULTILINE)}
    table = README.split("## Dependencies")[1].split("## ")[0]
    documented = {name for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) for name in row.split(", ")}
    assert documented - {"package", "---"} == required


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index_and_no_path(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert not re.search(r"index-url|find-links|https?://|file:|^/|@ ", lock, re.MULTILINE)
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=[a-zA-Z])", lock.strip()))


def test_what_moves_artifacts_is_locked_apart_from_what_computes() -> None:
    computes, moves = (set(re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / name).read_text(), re.MULTILINE))
                       for name in LOCKS)
    assert moves and not computes & moves


@pytest.mark.parametrize("trains_encoder", [False, True])
def test_the_numbers_are_those_of_the_committed_metrics(trains_encoder: bool) -> None:
    metrics = Metrics.of(ROOT)
    table = README.split("| students: ")[2 if trains_encoder else 1].split("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")] for row in re.findall(r"^\| (.+) \|$", table, re.MULTILINE)]
    methods = [method for method in metrics.trained if metrics.trains_encoder(method) == trains_encoder]
    assert [row[0] for row in rows] == [title(method) for method in methods]
    for method, (_, *cells) in zip(methods, rows, strict=True):
        assert cells == [shown(metrics, f"{method}-{budget}") for budget in metrics.grid.budgets]


def test_the_full_training_set_gives_what_the_readme_says() -> None:
    metrics = Metrics.of(ROOT)
    assert f"gives such students {shown(metrics, 'full-data')}" in README
    assert f"gives these {shown(metrics, 'full-data+encoder-students')}" in README


def shown(metrics: Metrics, name: str) -> str:
    """Mean and deviation as the README writes them."""
    found = metrics.evaluation(name)
    if not found:
        return "not run"
    held_out = found["protocols"]["held-out"]
    return f"{held_out['mean']['mean_recall']:.1f} ± {held_out['std']['mean_recall']:.1f}"
