"""`kill -9` at random moments, then the same command again: the same bytes as without a kill, no work done twice."""

import random
import re
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.workspace import Workspace

KILLS = 5


def kill_at_random_moments(workspace: Workspace, work: Path, command: tuple[str, ...], seed: int) -> int:
    """Start and kill a stage KILLS times, each at a random moment after it began to work; return how many kills hit."""
    moments, hits = random.Random(seed), 0
    for _ in range(KILLS):
        process = workspace.start(*command)
        before = newest(work)
        while process.poll() is None and newest(work) == before:
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 0.25))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            hits += 1
        process.wait()
    return hits


def newest(work: Path) -> tuple:
    """Changes whenever a stage writes down something that it could resume from."""
    try:
        return tuple(sorted((str(path), path.stat().st_mtime_ns) for path in work.rglob("*.safetensors")))
    except FileNotFoundError:  # renamed while we looked
        return ()


def items_done(output: str, label: str) -> int:
    """How many items the last, undisturbed run of a stage had left to do."""
    return int(re.search(rf"{label}: (\d+) \w+ done in", output)[1])


@pytest.mark.parametrize(("stage", "cell", "outputs", "label", "total"), [
    ("distill", "repblend-8", ("sets/repblend-8.safetensors", "metrics/distill/repblend-8.json",
                               "metrics/specimens/repblend-8.json"), "distill repblend-8", 31),
    ("distill", "lors-8", ("sets/lors-8.safetensors", "metrics/distill/lors-8.json"), "distill lors-8", 13),
    ("experts", None, ("experts", "metrics/experts.json"), "experts", 60),
])
def test_killed_stages_resume_bit_for_bit(copy: Workspace, stage: str, cell: str | None, outputs: tuple[str, ...],
                                          label: str, total: int) -> None:
    command = ("-m", "repblend.stages", stage, *([cell] if cell else []))
    if stage == "experts":
        copy.change({"experts": {"num": total}})
        copy.run(*command)
    expected = copy.hashes(*outputs)
    for name in outputs:
        path = copy.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    work = copy.folder / "checkpoints" / stage
    assert kill_at_random_moments(copy, work, command, seed=7) == KILLS
    output = copy.run(*command)
    assert copy.hashes(*outputs) == expected
    assert list(work.rglob("*.safetensors")) == []
    assert items_done(output, label) < total


def test_killing_the_run_itself_leaves_no_rival_and_loses_nothing(copy: Workspace) -> None:
    expected = copy.hashes("sets", "metrics", "paper")
    forget_distilled_sets(copy)
    for victim in ("repro", "repro.guarded_dvc"):
        family = kill_while_distilling(copy, victim)
        _, alive = psutil.wait_procs(family, timeout=5)
        assert alive == []
    assert "run the same command to go on" in copy.output()
    copy.run("-m", "repro", "run")
    assert copy.hashes("sets", "metrics", "paper") == expected


def forget_distilled_sets(workspace: Workspace) -> None:
    """Delete those of the quickstart and DVC's memory of having made them, so that the next run makes them again."""
    for cell in ("repblend-8", "repblend-without-blending-8"):
        (workspace.folder / "sets" / f"{cell}.safetensors").unlink()
        (workspace.folder / "metrics" / "distill" / f"{cell}.json").unlink()
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
