"""DVC as `repro` starts it: a stop costs nothing, dvc.lock has DVC's own bytes, and other workspaces do not matter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from repro.guarded_dvc import lock_entries

ROOT = Path(__file__).parents[2]
STOPPED = """
import os, sys
from repro.guarded_dvc import write_files_whole
from dvc.utils.serialize import _yaml

write_files_whole()
write = _yaml._dump

def stopped(data, stream):
    write(data, stream)
    stream.flush()
    os.kill(os.getpid(), int(sys.argv[2]))

_yaml._dump = stopped
if sys.argv[1] == "dump":
    _yaml.dump_yaml("dvc.lock", {"stages": {"new": 2}})
else:
    with _yaml.modify_yaml("dvc.lock") as data:
        data["stages"]["new"] = 2
"""
PIPELINE = """
stages:
  first: {cmd: mkdir -p folder && echo one > folder/a && echo two > folder/b, deps: [source.txt], outs: [folder]}
  cells:
    matrix: {method: [repblend+low, k-center], budget: [5, 10]}
    cmd: >-
      echo '${item.method}: # ${item.budget}' > set-${item.method}-${item.budget} && test -e folder/a
      && echo a command that is longer than a line of DVC "is wide" > /dev/null
    params: [seed, nested, {other.yaml: [x]}]
    deps: [folder]
    outs: ["set-${item.method}-${item.budget}"]
  last:
    cmd:
    - "printf '{\\"mean\\": 1}' > number.json"
    - |
      echo one > page.txt

      echo two >> page.txt
    deps: [set-k-center-10]
    outs: [page.txt]
    metrics: [number.json: {cache: false}]
"""


def run(folder: Path, *command: str) -> int:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True,
                          check=False).returncode


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with stages of every form, which has not run."""
    (tmp_path / "params.yaml").write_text("seed: 0\nnested: {yes: 'on', lr: 1e-3, text: 'a: b', list: [1, null]}\n")
    (tmp_path / "other.yaml").write_text("x: 1\n")
    (tmp_path / "source.txt").write_text("a source")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    assert run(tmp_path, "-m", "dvc", "init", "--no-scm", "--quiet") == 0
    return tmp_path


@pytest.mark.parametrize("signal", ["9", "2"])
@pytest.mark.parametrize("way", ["dump", "modify"])
def test_a_lock_that_is_not_written_to_its_end_is_the_one_before(way: str, signal: str, tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text("stages:\n  old: 1\n")
    assert run(tmp_path, "-c", STOPPED, way, signal) != 0
    assert lock.read_text() == "stages:\n  old: 1\n"


def test_dvc_itself_would_have_written_the_same_lock(workspace: Path) -> None:
    lock, (source, number) = workspace / "dvc.lock", (workspace / "source.txt", workspace / "number.json")
    (workspace / ".dvc.lock.partial").write_text("left by a killed run")
    locks = {}
    for module in ("repro.guarded_dvc", "dvc"):  # at first, after a change of what all need, of what one makes
        lock.unlink(missing_ok=True)
        locks[module] = []
        for changed, content in ((source, "a source"), (source, "another"), (number, "edited by hand")):
            changed.write_text(content)
            assert run(workspace, "-m", module, "repro", "--no-run-cache") == 0
            locks[module].append(lock.read_bytes())
    assert locks["repro.guarded_dvc"] == locks["dvc"] and len(set(locks["dvc"])) == 2
    cells = ("repblend+low-5", "repblend+low-10", "k-center-5", "k-center-10")
    assert lock_entries(lock.read_text()).keys() == {
        "  first:\n", "  last:\n", *(f"  cells@{cell}:\n" for cell in cells)}
    assert [path.name for path in workspace.iterdir() if "lock" in path.name] == ["dvc.lock"]


@pytest.mark.parametrize("text", [
    "", "schema: '2.0'\nstages: {}\n", "stages:\n  a:\n    cmd: x\n", "schema: '2.0'\nstages:\n  a: {cmd: x}\n",
    "schema: '2.0'\nstages:\n  a:\n    cmd: x\ndatasets: []\n", "schema: '2.0'\nstages:\n  # mine\n  a:\n    cmd: x\n",
    "schema: '2.0'\nstages:\n  ? a\n  : cmd: x\n", "<<<<<<< HEAD\nschema: '2.0'\nstages:\n  a:\n    cmd: x\n"])
def test_a_lock_of_another_form_is_left_to_dvc(text: str) -> None:
    assert lock_entries(text) is None


def test_another_workspace_that_is_broken_stops_nothing(workspace: Path) -> None:
    other = workspace / "profiles/other"
    other.mkdir(parents=True)
    (other / "dvc.yaml").write_text("stages: {a: {matrix: {x: '${no.such}'}, cmd: x}}\n")
    assert run(workspace, "-m", "dvc", "status") != 0
    assert run(workspace, "-m", "repro.guarded_dvc", "repro", "first") == 0
    assert run(other, "-m", "repro.guarded_dvc", "repro") != 0
