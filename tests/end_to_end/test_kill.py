"""`kill -9` on `repro run` and on DVC, then the same command again: the same bytes, no rival."""

import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from repblend.params.reading import read_yaml
from tests.end_to_end.workspace import Workspace

pytestmark = pytest.mark.runs


def newest(work: Path) -> tuple:
    """Changes whenever a stage writes down something that it could resume from."""
    try:
        return tuple(sorted((str(path), path.stat().st_mtime_ns) for path in work.rglob("*.safetensors")))
    except FileNotFoundError:  # renamed while we looked
        return ()


def test_killing_the_run_itself_leaves_no_rival_and_loses_nothing(copy: Workspace) -> None:
    expected = copy.hashes("sets", "records", "metrics", "paper")
    forget_distilled_sets(copy)
    for victim in ("repro", "repro.guarded_dvc"):
        family = kill_while_distilling(copy, victim)
        _, alive = psutil.wait_procs(family, timeout=5)
        assert alive == []
    assert "run the same command to go on" in copy.output()
    copy.run("-m", "repro", "run")
    assert copy.hashes("sets", "records", "metrics", "paper") == expected


def forget_distilled_sets(workspace: Workspace) -> None:
    """Delete two of them and DVC's copies, so that the next run makes them again."""
    locked = read_yaml(workspace.folder / "dvc.lock")["stages"]
    for stage, cell in (("distill@repblend-8", "repblend-8"), ("distill-variant@repblend+rank-2", "repblend+rank-2-8")):
        (workspace.folder / "sets" / f"{cell}.safetensors").unlink()
        shutil.rmtree(workspace.folder / "records" / "distill" / cell)
        for out in locked[stage]["outs"]:
            (workspace.folder / ".dvc/cache/files/md5" / out["md5"][:2] / out["md5"][2:]).unlink()
    for name in ("checkpoints", ".dvc/cache/runs"):
        shutil.rmtree(workspace.folder / name)


def kill_while_distilling(workspace: Workspace, victim: str) -> list[psutil.Process]:
    """Start a run, kill one of its processes when a new checkpoint appears; return all processes it had."""
    work = workspace.folder / "checkpoints" / "distill"
    before = newest(work)
    run = workspace.start("-m", "repro", "run")
    while run.poll() is None and newest(work) == before:
        time.sleep(0.01)
    family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
    next(process for process in family if victim in process.cmdline()).kill()
    assert run.wait(timeout=30) != 0
    return family


def test_a_second_run_at_once_is_refused(copy: Workspace) -> None:
    forget_distilled_sets(copy)
    first = copy.start("-m", "repro", "run")
    while not (copy.folder / "checkpoints" / "locks" / "workspace.holder.json").exists():
        time.sleep(0.01)
    other = Workspace(copy.folder)
    output = other.run("-m", "repro", "run", expect=1)
    assert f"is being written by another run (process {first.pid}" in output
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=30) == 128 + signal.SIGTERM
    running = [process.info for process in psutil.process_iter(["cmdline", "cwd"])]
    assert not any("repblend.stages" in (info["cmdline"] or []) and info["cwd"] == str(copy.folder) for info in running)
