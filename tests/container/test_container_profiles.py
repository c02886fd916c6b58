"""Profiles in containers of a real engine: their folder of the clone, and what a user brings from outside of it."""

import shutil
from pathlib import Path

import pytest

from repro.pipeline import yaml_text
from tests.container.toy import Toy
from tests.tiny import tiny_content

PROFILE = "mine"


@pytest.fixture
def brought(tmp_path: Path) -> Path:
    """A folder outside of the clone with a data set of a user's own, buffers and an imported set."""
    folder = tmp_path / "brought, from elsewhere"
    (folder / "buffers").mkdir(parents=True)
    (folder / "set").mkdir()
    for name in ("set/captions.csv", "buffers/img_replay_buffer_0.pt", "distilled_0.pt", "private"):
        (folder / name).write_text(f"{name}\n")
    return folder


def declare(toy: Toy, brought: Path) -> None:
    """Declare a profile that reads what the user brings."""
    content = tiny_content()
    content["data"] = {"name": "mine", "folder": str(brought / "set"), "captions": "captions.csv", "image_size": 32,
                       "max_caption_words": 60}
    content["experts"]["import_from"] = {"path": str(brought / "buffers")}
    content["distill"]["cells"]["repblend-50"] = {"import_from": {
        "path": str(brought / "distilled_0.pt"), "loss": "wbce", "temperature": 0.07}}
    (toy.folder / f"conf/profiles/{PROFILE}.yaml").write_text("# @package _global_\n" + yaml_text(content))
    (toy.folder / ".gitignore").write_text((toy.folder / ".gitignore").read_text() + "/profiles/*/*.txt\n")
    look = f"pwd; ls '{brought}'; cat '{brought}'/*/* '{brought}/distilled_0.pt'"
    toy.define(experts=f"({look}; touch '{brought}/set/x' 2>/dev/null || echo read-only) > records/experts.txt")
    pipeline = toy.read("dvc.yaml").replace("  prepare:\n", "  prepare:\n    deps: [requirements/lock.txt]\n")
    (toy.folder / "conf/multimodal.dvc.yaml").write_text(pipeline)  # what the profile's dvc.yaml is made from
    toy.commit()


def test_a_profile_sees_what_its_parameters_name_and_nothing_beside_and_runs_again_for_that(
        new_toy: Toy, brought: Path) -> None:
    declare(new_toy, brought)
    command = ("run", "experts", "--profile", PROFILE, "--engine", "docker")
    new_toy.run(*command)
    made = new_toy.folder / "profiles" / PROFILE / "records/experts.txt"
    assert made.read_text().splitlines() == [
        f"/workspace/profiles/{PROFILE}", "buffers", "distilled_0.pt", "set", "buffers/img_replay_buffer_0.pt",
        "set/captions.csv", "distilled_0.pt", "read-only"]
    assert not (new_toy.folder / "records/experts.txt").exists() and not (brought / "set/x").exists()
    before = made.stat().st_mtime_ns
    new_toy.run(*command)
    assert made.stat().st_mtime_ns == before
    (brought / "buffers/img_replay_buffer_0.pt").write_text("other\n")
    new_toy.run(*command)
    assert "other" in made.read_text().splitlines()
    shutil.rmtree(brought / "buffers")
    assert f"no such file: {brought}/buffers. Put it there" in new_toy.run(*command, expect=1)
