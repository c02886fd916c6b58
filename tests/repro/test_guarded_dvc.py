"""DVC as `repro` starts it: a stop while it writes dvc.lock costs nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STOPPED = """
import os, sys
from pathlib import Path
from repro.guarded_dvc import write_dvc_files_whole
from dvc.utils.serialize import _yaml

write_dvc_files_whole()
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


def run(folder: Path, *command: str) -> int:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True,
                          check=False).returncode


@pytest.mark.parametrize("signal", ["9", "2"])
@pytest.mark.parametrize("way", ["dump", "modify"])
def test_a_lock_that_is_not_written_to_its_end_is_the_one_before(way: str, signal: str, tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text("stages:\n  old: 1\n")
    assert run(tmp_path, "-c", STOPPED, way, signal) != 0
    assert lock.read_text() == "stages:\n  old: 1\n"


def test_a_run_writes_the_lock_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages:\n  only: {cmd: echo made > out, outs: [out]}\n")
    assert run(tmp_path, "-m", "dvc", "init", "--no-scm", "--quiet") == 0
    (tmp_path / ".dvc.lock.partial").write_text("left by a killed one")
    assert run(tmp_path, "-m", "repro.guarded_dvc", "repro") == 0
    assert "only:" in (tmp_path / "dvc.lock").read_text()
    assert [path.name for path in tmp_path.iterdir() if "lock" in path.name] == ["dvc.lock"]
