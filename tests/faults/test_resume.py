"""`kill -9` at random moments, five times, then the same stage again: the same bytes, and no work done twice."""

import random
import re
from pathlib import Path

import pytest

from repblend.runtime.provenance import read_runs
from repblend.store import sha256
from tests.faults.server import Server
from tests.faults.workspaces import make

pytestmark = pytest.mark.faults
KILLS = 5
CHANGES = {"experts": {"num": 40}, "distill": {
    "common": {"iterations": 60},
    "cells": {"repblend-8": {}, "repblend+rank-2-8": {"similarity_rank": 2},
              "lors-8": {"iterations": 14, "validate_every": 14, "inner_steps": 1, "initial_lr_img": 0.0003}}}}


@pytest.fixture(scope="module")
def workspace(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which experts and distillation have more to do than a kill interrupts."""
    folder = tmp_path_factory.mktemp("resume") / "a workspace"
    make("multimodal", folder, CHANGES)
    for stage in ("settings", "prepare", "encode", "experts", "encoder-experts"):
        run = server.run(folder, "multimodal", stage)
        assert run.code == 0, run.output
    return folder


@pytest.mark.parametrize(("stage", "cell", "outputs", "total"), [
    ("distill", "repblend-8", ("sets/repblend-8.safetensors", "records/distill/repblend-8"), 60),
    ("distill", "lors-8", ("sets/lors-8.safetensors", "records/distill/lors-8"), 14),
    ("experts", None, ("experts", "records/experts.json"), 40)])
def test_killed_stages_resume_bit_for_bit(server: Server, workspace: Path, stage: str, cell: str | None,
                                          outputs: tuple[str, ...], total: int) -> None:
    command, moments = ("multimodal", stage, *([cell] if cell else [])), random.Random(7)
    assert server.run(workspace, *command).code == 0
    expected = hashes(workspace, outputs)
    for _ in range(KILLS):
        run = server.run(workspace, *command, interrupt=("SIGKILL", moments.uniform(0, 0.1)),
                         watched=workspace / "checkpoints" / stage)
        assert run.code == -9, "not killed: it was over before"
    run = server.run(workspace, *command)
    assert run.code == 0 and hashes(workspace, outputs) == expected
    assert list((workspace / "checkpoints" / stage).rglob("*.safetensors")) == []
    name = f"{stage}@{cell}" if cell else stage
    assert [run.resumed for run in read_runs(workspace / "runs.jsonl") if run.stage == name] == [True]
    assert int(re.search(rf"{command[1]}[^:\n]*: (\d+) \w+ done in", run.output)[1]) < total


def hashes(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    files = [path for name in names for path in [folder / name, *(folder / name).rglob("*")]]
    return {str(path.relative_to(folder)): sha256(path) for path in files if path.is_file()}
