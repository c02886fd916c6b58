"""The README's commands do what it says, its tables are what is declared, and it stays short."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import benchmarks.__main__ as bench
from benchmarks import efficiency, evaluation, iteration
from repblend.encoders.hub import CHECKPOINTS
from repblend.encoders.registry import IMAGE_ENCODERS
from repblend.matching.distillation import Draws
from repblend.records.results import Efficiency
from repro.cli import app, image_app
from repro.profiles import names
from tests.docs.documents import ROOT, commands, documents

LOCKS = ("requirements/lock.txt", "requirements/tools.txt")


def section(document: str, heading: str) -> str:
    return (ROOT / document).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]


def cells(rows: list[str]) -> list[list[str]]:
    return [[cell.strip() for cell in row.split("|")] for row in rows]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_nothing_is_left_to_fill_in() -> None:
    assert {path.name: found for path in documents()
            if (found := re.findall(r"@[A-Z]+@|TO-MEASURE|TODO|FIXME", path.read_text()))} == {}


def test_every_command_of_repro_is_in_its_table() -> None:
    documented = re.findall(r"^\| `repro (\w+)", (ROOT / "repro/README.md").read_text().split("\n## ")[0], re.MULTILINE)
    assert sorted(documented) == sorted(entry.name for entry in (*app.registered_commands, *app.registered_groups))


def test_every_command_of_repro_image_is_shown() -> None:
    shown = {command.words[2] for command in commands(ROOT / "docker/README.md")
             if command.words[:2] == ["repro", "image"]}
    assert shown == {command.name for command in image_app.registered_commands}


def test_every_profile_is_in_the_table() -> None:
    table = (ROOT / "profiles/README.md").read_text().split("\n## ")[0]
    documented = {name for row in re.findall(r"^\| (`[^|]+)\|", table, re.MULTILINE)
                  for name in re.findall(r"`([\w-]+)`", row)}
    assert documented == set(names(ROOT))


def test_the_table_of_encoders_is_what_is_declared() -> None:
    rows = cells(re.findall(r"^\| (`.+) \|$", section("repro/README.md", "Encoders"), re.MULTILINE))
    assert {row[0].strip("`") for row in rows} == CHECKPOINTS.keys()
    for name, _, features, size, license_, pinned in rows:
        checkpoint = CHECKPOINTS[name.strip("`")]
        assert size == f"{checkpoint.num_bytes / 1e6:.0f} MB" and license_ == checkpoint.license
        assert pinned == ("here" if checkpoint.is_pinned else "by the first fetch")
        entry = IMAGE_ENCODERS.get(name.strip("`"))
        assert int(features) == (entry.feature_dim if entry else 768)


def test_the_table_of_dependencies_is_the_requirements_files() -> None:
    required = {name for file in ("requirements.in", "tools.in") for name in re.findall(
        r"^([A-Za-z0-9_.-]+)", (ROOT / "requirements" / file).read_text(), re.MULTILINE)}
    rows = cells(re.findall(r"^\| (.+) \|$", section("CONTRIBUTING.md", "Dependencies"), re.MULTILINE))[1:]
    required = {"fontpkg-…" if name.startswith("fontpkg-") else name for name in required}  # one row for 52 typefaces
    assert {name for row in rows for name in row[0].split(", ")} == required


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", f"PYTHON={sys.executable}", *arguments], cwd=folder, capture_output=True, text=True,
                          check=False)


@pytest.mark.parametrize(("target", "recipe"), [
    ("reproduce", "repro run"), ("test", "python -m pytest"),
    ("test-image", "python -m pytest -m image -s tests/container"), ("bench", "python -m benchmarks"),
    ("lint", "ruff check .")])
def test_make_does_what_the_documents_say_after_setting_up(target: str, recipe: str, tmp_path: Path) -> None:
    assert any(f"make {target}" in path.read_text() for path in documents())
    for name in ("Makefile", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "requirements").mkdir()
    for name in LOCKS:
        shutil.copyfile(ROOT / name, tmp_path / name)
    fresh = make(tmp_path, "--dry-run", target).stdout
    assert "install.py check\n" in fresh and "-m venv --clear .venv\n.venv/bin/python requirements/install.py" in fresh
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


@pytest.mark.runs
def test_the_recordings_agree_by_the_documented_command() -> None:
    recordings = sorted((ROOT / "tests/parity/recordings").glob("*.npz"))
    done = subprocess.run([sys.executable, "-m", "repro", "parity", *recordings], cwd=ROOT, capture_output=True,
                          text=True, check=False, env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"})
    assert done.returncode == 0, done.stdout + done.stderr
    expected = f"{len(recordings)} recordings, 0 arrays out of tolerance"
    assert expected in done.stdout and expected in (ROOT / "README.md").read_text()


def test_the_benchmark_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for module, name, value in ((bench, "SIZES", (32,)), (bench, "ROUNDS", 1), (bench, "THREADS", 1),
                                (iteration, "PAIRS", 24), (iteration, "DRAWS", replace(iteration.DRAWS, inner_steps=2)),
                                (evaluation, "EPOCHS", 5), (evaluation, "IMAGE_SIZE", 32),
                                (bench, "IMAGE_SIZE", 32), (evaluation, "VAL", (30, 40)),
                                (evaluation, "TEST", (130, 150))):
        monkeypatch.setattr(module, name, value)
    bench.main()
    printed = capsys.readouterr().out
    for name in ("lower bound", "encode once", "two passes, encoder as it comes", "five at once",
                 "the released way"):
        assert re.search(rf"  {name}.*\d\.\d{{3}}", printed), printed


@pytest.mark.parametrize("method", efficiency.METHODS)
def test_the_benchmark_of_efficiency_measures_every_method(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("IMAGE_SIZE", 32), ("BUDGET", 24), ("NUM_PAIRS", 16), ("THREADS", 1),
                        ("Draws", lambda **draws: Draws(**draws | {"inner_steps": 2}))):
        monkeypatch.setattr(efficiency, name, value)
    costs = efficiency.measure(method, rounds=1)
    Efficiency(machine="test", threads=1, budget=24, image_size=32, methods={method: costs})
    snapshot_bytes = 4 * (1280 * 256 + 256 * 256 + 384 * 256 + 256 * 256 + 8 * 256 if method == "repblend" else
                          3_350_000 + 384 * 1280 + 1280 * 1280 + 4 * 1280)
    assert costs.trajectory_bytes == snapshot_bytes * (16 // 20 + 1)  # 16 steps, a snapshot every 20


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index_and_no_path(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert not re.search(r"index-url|find-links|https?://|file:|^/|@ ", lock, re.MULTILINE)
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=[a-zA-Z])", lock.strip()))


def test_what_moves_artifacts_is_locked_apart_from_what_computes() -> None:
    computes, moves = (set(re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / name).read_text(), re.MULTILINE))
                       for name in LOCKS)
    assert moves and not computes & moves


def test_the_citation_is_the_readmes_and_has_what_the_format_requires() -> None:
    citation = YAML(typ="safe", pure=True).load(ROOT / "CITATION.cff")
    assert citation.keys() >= {"cff-version", "message", "title", "authors"} and citation["cff-version"] == "1.2.0"
    assert f'version = "{citation["version"]}"' in (ROOT / "pyproject.toml").read_text()
    paper = citation["preferred-citation"]
    people = ", ".join(f"{author['given-names']} {author['family-names']}" for author in paper["authors"])
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"{people}, *{paper['title']}*" in readme and paper["url"] in readme
