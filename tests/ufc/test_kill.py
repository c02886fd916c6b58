"""A command that is killed in the middle of its work goes on, and leaves the bytes of one that was not."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repblend.streams import stream
from repblend.tensors import read_tensors
from repblend.ufc.__main__ import main
from repblend.ufc.networks import build
from repblend.ufc.training import write_teacher

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
COMMAND = ["cifar", "--dataset", "digits", "--M", "1", "--ipc", "2", "--iteration", "300", "--jitter", "1",
           "--init_path", "initial", "--syn-data-path", "syn", "--wandb-name", "run", "--store-best-images"]
CHECKPOINTS = Path("syn/run/generated_results/checkpoints/generate/convnet-small")


def test_kill_9_and_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("killed", "whole"):
        write_teacher(tmp_path / name / "pretrained/teachers/convnet-small.safetensors", "convnet-small",
                      build("convnet-small", 10, 8, stream(0, "tests")))
    done = kill_after_the_first_checkpoint(tmp_path / "killed")
    assert 0 < done < 300
    for name in ("killed", "whole"):
        with contextlib.chdir(tmp_path / name):
            assert main(COMMAND) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def kill_after_the_first_checkpoint(folder: Path) -> int:
    """Start the command, kill it, and return how many iterations its checkpoint holds."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    process = subprocess.Popen([sys.executable, "-m", "repblend.ufc", *COMMAND], cwd=folder, env=environment)
    deadline = time.monotonic() + 120
    while not (found := list((folder / CHECKPOINTS).glob("[!.]*.safetensors"))):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return read_tensors(found[0])[1]["iteration"]


def files(folder: Path) -> dict[str, bytes]:
    made = folder / "syn/run/generated_results"
    found = {path.relative_to(made).as_posix(): path.read_bytes() for name in ("initial", "compensators", "sets")
             for path in sorted((made / name).rglob("*")) if path.is_file()}
    assert len(found) > 20
    return found
