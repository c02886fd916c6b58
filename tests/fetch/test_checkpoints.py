"""Fetching from a model hub: whole files or none, resumed after a kill, and never with other bytes than expected."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
import torch
from typer.testing import CliRunner

from repblend.encoders import hub as hub_files
from repblend.encoders.hub import CHECKPOINTS, WEIGHTS, Checkpoint, File
from repblend.encoders.registry import load_image_encoder
from repblend.params.reading import read_yaml
from repblend.store import read_json, sha256
from repro import QUICKSTART, run
from repro.cli import app
from repro.engines.base import Engine, Request
from repro.fetch import checkpoints
from repro.fetch import hub as hub_fetch
from repro.pipeline import pipeline_for, yaml_text
from repro.profiles import Profile, profile_of
from repro.workspace import workspace_environment
from tests.checkpoints import narrow_models, write
from tests.fetch.hub_server import COMMIT, Hub, serve
from tests.tiny import tiny_content

ROOT = Path(__file__).parents[2]
REPOSITORY, RECORD = "owner/name", "conf/checkpoints/owner--name.json"
CONFIG, SMALL = b'{"architecture": "test_resnet"}\n', b"weights of a few bytes"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, which this process's library is told to ask."""
    with serve(Hub({REPOSITORY: {"config.json": CONFIG, WEIGHTS: SMALL}})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # until a fetch allows it; put back after
        yield served


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a clone is known by; the working directory."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "src/repblend").mkdir(parents=True)
    write_params(tmp_path, "efficientnet_lite0", [])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_params(clone: Path, image_encoder: str, architectures: list[str]) -> Profile:
    """Write parameters that use these encoders; return the profile that has them."""
    content = tiny_content()
    content["encode"]["image_encoder"], content["transfer"]["architectures"] = image_encoder, architectures
    content["grid"]["compared_budgets"] = [50]  # or no stage would transfer anything
    (clone / "conf/profiles").mkdir(parents=True, exist_ok=True)
    (clone / f"conf/profiles/{QUICKSTART}.yaml").write_text("# @package _global_\n" + yaml_text(content))
    (clone / "params.yaml").write_text(yaml_text(content))
    return profile_of(clone, QUICKSTART)


def the_files(weights: bytes = SMALL, **pinned: str) -> Checkpoint:
    return Checkpoint(REPOSITORY, pinned.get("revision"), (File("config.json"), File(WEIGHTS, pinned.get("sha256"))))


def folder(clone: Path, commit: str = COMMIT) -> Path:
    return clone / "data/hub/models--owner--name/snapshots" / commit


def start(clone: Path, hub: Hub, *arguments: str) -> subprocess.Popen:
    """Start `repro checkpoints` in a process of its own, where the network is forbidden by default."""
    environment = workspace_environment(ROOT) | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([sys.executable, "-m", "repro", "checkpoints", *arguments], cwd=clone, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_first_fetch_records_what_it_found_and_later_ones_ask_for_that(clone: Path, hub: Hub) -> None:
    lines: list[str] = []
    hub_fetch.fetch([the_files()], clone, lines.append)
    assert {path.name: path.read_bytes() for path in folder(clone).iterdir()} == {"config.json": CONFIG, WEIGHTS: SMALL}
    assert lines == [f"{REPOSITORY} at {COMMIT[:7]}: 2 file(s), 0.0 MB, to data/hub/",
                     f"{RECORD} is new: commit it, so that everyone gets the same files."]
    recorded = read_json(clone / RECORD)
    assert recorded["revision"] == COMMIT
    assert recorded["files"][WEIGHTS] == {"sha256": sha256(folder(clone) / WEIGHTS), "num_bytes": len(SMALL)}
    hub.commit = "1" * 40  # the branch moves on
    (folder(clone) / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="cannot be fetched"):  # this hub has nothing but its latest commit
        hub_fetch.fetch([the_files()], clone)
    assert f"/{REPOSITORY}/resolve/{COMMIT}/{WEIGHTS}" in hub.asked[-1][1]


def test_what_is_there_is_not_fetched_again(clone: Path, hub: Hub) -> None:
    hub_fetch.fetch([the_files()], clone)
    before, lines = len(hub.asked), []
    hub_fetch.fetch([the_files(), the_files()], clone, lines.append)
    assert len(hub.asked) == before
    assert lines == [f"{REPOSITORY} at {COMMIT[:7]}: complete, every SHA-256 is right"]


def test_a_damaged_file_is_fetched_again_and_only_that(clone: Path, hub: Hub) -> None:
    hub_fetch.fetch([the_files()], clone)
    before = len(hub.downloads())
    (folder(clone) / WEIGHTS).write_bytes(b"damaged")
    hub_fetch.fetch([the_files()], clone)
    assert (folder(clone) / WEIGHTS).read_bytes() == SMALL
    assert hub.downloads()[before:] == [f"/{REPOSITORY}/resolve/{COMMIT}/{WEIGHTS}"]


def test_other_bytes_than_the_pinned_ones_are_refused_and_removed(clone: Path, hub: Hub) -> None:
    with pytest.raises(ValueError, match=f"expected sha256 {'0' * 64}, found sha256 "):
        hub_fetch.fetch([the_files(sha256="0" * 64)], clone)
    assert [path.name for path in folder(clone).iterdir()] == ["config.json"]
    assert not (clone / RECORD).exists()


@pytest.mark.parametrize(("name", "tag", "said"), [
    ("config.json", {"ETag": f'"{"0" * 40}"'}, f"git hash is [0-9a-f]+, expected {'0' * 40}"),
    (WEIGHTS, {"X-Linked-Etag": f'"{"0" * 64}"'}, f"expected sha256 {'0' * 64}")])
def test_bytes_that_are_not_what_the_hub_announced_are_refused(name: str, tag: dict[str, str], said: str, clone: Path,
                                                               hub: Hub) -> None:
    """On the first fetch nothing is pinned, but the hub says a hash of every file before it sends it."""
    hub.claims[name] = tag
    with pytest.raises(ValueError, match=rf"{name}: .*{said}"):
        hub_fetch.fetch([the_files()], clone)
    assert not (folder(clone) / name).exists() and not (clone / RECORD).exists()


def test_a_hub_that_answers_with_another_commit_is_refused(clone: Path, hub: Hub) -> None:
    hub.claims["config.json"] = {"X-Repo-Commit": "2" * 40}
    with pytest.raises(ValueError, match=f"answers with commit {'2' * 40}, expected {COMMIT}"):
        hub_fetch.fetch([the_files(revision=COMMIT)], clone)
    assert hub.downloads() == []


def test_a_file_of_another_size_is_refused_before_it_is_downloaded(clone: Path, hub: Hub) -> None:
    checkpoint = Checkpoint(REPOSITORY, COMMIT, (File(WEIGHTS, "0" * 64, len(SMALL) + 1),))
    with pytest.raises(ValueError, match=rf"{len(SMALL)} bytes there, expected {len(SMALL) + 1}"):
        hub_fetch.fetch([checkpoint], clone)
    assert hub.downloads() == []


def test_a_fetch_killed_half_way_goes_on_from_there(clone: Path, hub: Hub) -> None:
    large = torch.randint(256, (8_000_000,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    hub.repositories[REPOSITORY][WEIGHTS] = large.numpy().tobytes()
    hub.stop_after = 5_000_000
    process = start(clone, hub, "fetch", f"timm:{REPOSITORY}")
    assert hub.stalled.wait(60)
    part = folder(clone) / f"{WEIGHTS}.part"
    until(lambda: part.stat().st_size > 4_000_000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = part.stat().st_size
    assert 0 < kept < 8_000_000 and not (folder(clone) / WEIGHTS).exists()
    hub.stop_after = None
    hub.released.set()
    again = start(clone, hub, "fetch", f"timm:{REPOSITORY}")
    output, errors = again.communicate()
    assert again.returncode == 0, errors
    assert hub.ranges() == [f"bytes={kept}-"] * 2  # at the hub, and at its storage
    assert (folder(clone) / WEIGHTS).read_bytes() == hub.repositories[REPOSITORY][WEIGHTS] and not part.exists()
    assert "8.0 MB" in output and f"{RECORD} is new: commit it" in output


def until(true: object, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_command_explains_what_cannot_be_had(clone: Path, hub: Hub) -> None:
    for name, expected in (("timm:owner/absent", f"{hub.url}/owner/absent/resolve/main/config.json: cannot be fetched"),
                           ("efficientnet_lite0", "is no encoder of the model hub; expected one of nfnet_l0"),
                           ("timm:a/b/c", "names no repository of the model hub")):
        found = CliRunner().invoke(app, ["checkpoints", "fetch", name])
        assert found.exit_code == 1 and expected in found.output and isinstance(found.exception, SystemExit)


def test_a_fetched_encoder_loads(clone: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_models(monkeypatch)
    files = write("nf_regnet_b1", clone / "aside")
    hub.repositories[files.repository] = {WEIGHTS: (clone / "aside" / WEIGHTS).read_bytes()}
    profile = write_params(clone, "nf_regnet_b1", ["efficientnet_lite1", "nf_regnet_b1"])
    assert checkpoints.needed(profile) == ["nf_regnet_b1"]
    checkpoints.fetch_missing(profile)
    assert load_image_encoder("nf_regnet_b1", 64).feature_dim == 960
    used = hub_files.checkpoints_used(["nf_regnet_b1"], clone)["nf_regnet_b1"]
    assert (used.revision, used.sha256) == (COMMIT, {WEIGHTS: sha256(clone / "aside" / WEIGHTS)})
    monkeypatch.setattr(checkpoints, "fetch", lambda *_: pytest.fail("it is there"))
    checkpoints.fetch_missing(profile)


def test_a_run_fetches_nothing_where_nothing_is_needed(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "fetch", lambda *_: pytest.fail("nothing is needed"))
    checkpoints.fetch_missing(profile_of(clone, QUICKSTART))


def test_features_depend_on_the_record_of_a_checkpoint_that_nothing_else_pins(clone: Path) -> None:
    profile = write_params(clone, "nfnet_l0", ["nf_resnet50", "dinov2_vit_b14"])
    stages = pipeline_for(ROOT / profile.kind.template, read_yaml(clone / "params.yaml"), PurePosixPath("../.."),
                          profile.brought().dependencies)
    found = {name: record for name, stage in stages["stages"].items() for record in stage["deps"]
             if "conf/checkpoints" in record}
    assert found.pop("encode") == "../../conf/checkpoints/timm--nfnet_l0.ra2_in1k.json"
    assert set(found.values()) == {"../../conf/checkpoints/timm--nf_resnet50.ra2_in1k.json"}
    encoding_others = {name for name, stage in stages["stages"].items() if "stages transfer " in stage["cmd"]}
    assert found.keys() == encoding_others and encoding_others


def test_a_run_begins_with_the_fetch(clone: Path, hub: Hub, capsys: pytest.CaptureFixture) -> None:
    write_params(clone, "timm:owner/absent", [])
    assert run.main([], QUICKSTART, Request(Engine.LOCAL)) == 1
    said = capsys.readouterr()
    assert "need checkpoints that are not here yet: timm:owner/absent" in said.out
    assert f"{hub.url}/owner/absent/resolve/main/config.json: cannot be fetched" in said.err


def test_check_names_what_is_damaged_and_how_to_mend_it(clone: Path, hub: Hub) -> None:
    name = f"timm:{REPOSITORY}"
    hub_fetch.fetch([the_files()], clone)
    assert CliRunner().invoke(app, ["checkpoints", "check", name]).output == f"ok    {name}\n"
    (folder(clone) / WEIGHTS).write_bytes(b"damaged")
    found = CliRunner().invoke(app, ["checkpoints", "check", name])
    assert found.exit_code == 1 and f"MEND  {name}: {folder(clone) / WEIGHTS}: SHA-256 is" in found.output
    assert f"mend with `repro checkpoints fetch {name}`" in found.output


def test_the_list_has_every_declared_encoder_and_says_what_is_here(clone: Path) -> None:
    lines = CliRunner().invoke(app, ["checkpoints", "list"]).output.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *CHECKPOINTS]
    assert all(" -  " in line for line in lines[1:])


def test_alone_it_lists_what_the_parameters_need(clone: Path) -> None:
    assert CliRunner().invoke(app, ["checkpoints"]).output == "quickstart needs no checkpoint from the hub.\n"
    write_params(clone, "nfnet_l0", ["nf_resnet50", "efficientnet_lite2"])
    lines = CliRunner().invoke(app, ["checkpoints"]).output.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "nfnet_l0", "nf_resnet50"]


def test_a_profile_given_before_the_command_is_not_silently_ignored(clone: Path) -> None:
    found = CliRunner().invoke(app, ["checkpoints", "--profile", "coco", "fetch"])
    assert found.exit_code == 2 and "--profile coco" in found.output
