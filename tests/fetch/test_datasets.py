"""`repro data fetch` from servers on this machine: interrupted, repeated, refused; and what it says about trust."""

import hashlib
import json
import re
import shlex
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from repblend.data.source import KNOWN
from repblend.params.data import OwnData
from repblend.params.reading import read_yaml
from repro.cli import app, data_app
from repro.fetch import datasets
from repro.fetch import download as download_module
from repro.fetch.datasets import CAPTIONED, LABELLED, ORIGINS, HubFiles, Origin, RemoteFile, find_entry
from repro.fetch.download import Digest
from tests import shaped
from tests.fetch.range_server import RangeServer, serving
from tests.test_archives import write
from tests.tiny import ROOT


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone/dvc.yaml").touch()
    monkeypatch.chdir(tmp_path / "clone")
    with serving(tmp_path / "served") as state:
        monkeypatch.setenv("HF_ENDPOINT", state.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # until a fetch allows it; put back after
        yield state


def small(monkeypatch: pytest.MonkeyPatch, key: str, origin: Origin) -> None:
    """Let a published set come from elsewhere, without the counts of the real one."""
    monkeypatch.setitem(ORIGINS, key, origin)
    monkeypatch.setitem(KNOWN[key].entry, "expected", {})


def pack(archive: Path, folder: Path, pattern: str) -> None:
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.rglob(pattern)):
            packed.write(path, path.relative_to(folder))
            path.unlink()


def test_coco_is_fetched_unpacked_and_checked_through_every_interruption(
        server: RangeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    served = shaped.coco(server.folder, 30, 5, 7)
    images = {path.relative_to(served): path.read_bytes() for path in served.rglob("*.jpg")}
    for split in ("train", "val"):
        pack(served / f"{split}2014.zip", served, f"{split}2014/*.jpg")
    md5 = hashlib.md5((served / "train2014.zip").read_bytes()).hexdigest()
    files = [RemoteFile(f"{server.address}/coco_karpathy_{split}.json", f"coco_karpathy_{split}.json")
             for split in ("train", "val", "test")]
    archives = [RemoteFile(f"{server.address}/train2014.zip", "train2014.zip", Digest("md5", md5), unpacked=True),
                RemoteFile(f"{server.address}/val2014.zip", "val2014.zip", unpacked=True)]
    small(monkeypatch, "coco", Origin((*files, *archives)))
    server.break_after = [300, 100, 10_000, 9_000, 5_000]
    assert datasets.main("coco", None) == 0
    folder = Path("data/coco")
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.jpg")} == images
    assert not list(folder.glob("*.zip")) and not list(folder.rglob("*.part*"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"]["train"] == {"images": 30, "captions": 150} and len(manifest["images"]) == 42
    record = json.loads((folder / "fetched.json").read_text())
    assert record[archives[0].url]["compared_with"] == f"md5 {md5}"
    assert "first fetch is trusted" in record[archives[1].url]["compared_with"]
    assert "first fetch is trusted" in capsys.readouterr().out

    server.ranges = []
    assert datasets.main("coco_karpathy", None) == 0
    assert server.ranges == [] and capsys.readouterr().out.count("is there already") == 5
    next(folder.glob("train2014/*.jpg")).unlink()
    assert datasets.main("coco", None) == 0
    assert server.ranges == [("train2014.zip", 0)]


def test_a_file_that_was_trusted_once_has_to_come_as_the_same_again(
        server: RangeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    shaped.flickr30k(server.folder, 3, 1, 1)
    files = tuple(RemoteFile(f"{server.address}/flickr30k_{split}.json", f"flickr30k_{split}.json")
                  for split in ("train", "val", "test"))
    small(monkeypatch, "flickr30k", Origin(files))
    datasets.main("flickr30k", None)
    (Path("data/flickr30k") / files[0].name).unlink()
    (server.folder / files[0].name).write_text("[]")
    assert datasets.main("flickr30k", None) == 1
    assert "flickr30k_train.json: expected sha256" in capsys.readouterr().err
    assert not (Path("data/flickr30k") / files[0].name).exists()


@pytest.mark.parametrize(("page", "said"), [
    ("", ", line 1: expected JSON"),
    ("<!DOCTYPE html><html>Sign in</html>", ": expected UTF-8 text, but it is a web page")])
def test_a_page_in_the_place_of_a_file_is_not_trusted_and_a_trusted_file_can_be_forgotten(
        page: str, said: str, server: RangeServer, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture) -> None:
    shaped.flickr30k(server.folder, 3, 1, 1)
    name = "flickr30k_train.json"
    small(monkeypatch, "flickr30k", Origin((RemoteFile(f"{server.address}/{name}", name),)))
    whole = (server.folder / name).read_text()
    (server.folder / name).write_text(page)
    assert datasets.main("flickr30k", None) == 1
    assert f"{name}{said}" in capsys.readouterr().err
    assert not (Path("data/flickr30k") / name).exists()
    (server.folder / name).write_text(whole)
    datasets.main("flickr30k", None)
    assert datasets.forget_main("flickr30k", name, None) == 0
    assert not (Path("data/flickr30k") / name).exists() and name not in Path("data/flickr30k/fetched.json").read_text()
    assert datasets.forget_main("flickr30k", name, None) == 1


def test_flickr30k_comes_without_images_and_the_steps_by_hand_are_printed(
        server: RangeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    served = shaped.flickr30k(server.folder, 3, 1, 1)
    real = ORIGINS["flickr30k"]
    small(monkeypatch, "flickr30k", Origin(tuple(
        RemoteFile(f"{server.address}/{file.name}", file.name) for file in real.files), (), real.steps, real.by_hand))
    assert datasets.main("flickr30k", None) == 1
    printed = capsys.readouterr().out
    assert "Ask for them at https://shannon.cs.illinois.edu" in printed
    assert f"-C {Path.cwd() / 'data/flickr30k'}" in printed and "repro data check flickr30k" in printed
    assert datasets.main("flickr30k", Path("else where")) == 1
    assert "Run `repro data check flickr30k 'else where'`" in capsys.readouterr().out
    shutil.copytree(served / "flickr30k-images", "data/flickr30k/flickr30k-images")  # the steps
    assert datasets.check_main("flickr30k", None) == 0
    (served / "flickr30k-images").rename("else where/flickr30k-images")
    assert "data.folder" not in capsys.readouterr().out
    assert datasets.main("flickr30k", Path("else where")) == 0
    printed = capsys.readouterr().out
    assert "Ask for them" not in printed and f"set it to {Path.cwd() / 'else where'}" in printed


def test_the_hub_says_where_files_lie_and_their_hashes(
        server: RangeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    made = shaped.cc3m(server.folder / "made", 5, 2, 3)
    names = tuple(f"captions_{split}zx2025.json" for split in ("train", "val", "test"))
    resolved = {name: f"me/captions/resolve/main/deep/{name}" for name in names}
    pack(made / "images.zip", made, "*.jpg")
    resolved["images.zip"] = "datasets/me/images/resolve/main/images.zip"
    sha = hashlib.sha256((made / "images.zip").read_bytes()).hexdigest()
    for name, path in resolved.items():
        (server.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (made / name).rename(server.folder / path)

    def listing(path: str, entries: list[dict]) -> None:
        (server.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (server.folder / path).write_text(json.dumps(entries))

    pages = [[{"type": "directory", "path": "deep", "oid": "1"},
              {"type": "file", "path": f"deep/{names[0]}", "oid": "1", "size": 1}],
             [{"type": "file", "path": f"deep/{name}", "oid": "1", "size": 1} for name in names[1:]]]
    listing("api/models/me/captions/tree/main", pages[0])
    listing("api/second", pages[1])
    server.links["/api/models/me/captions/tree/main?recursive=true&expand=false"] = (
        f'<{server.address}/api/second>; rel="next"')
    listing("api/datasets/me/images/tree/main", [{"type": "file", "path": "images.zip", "oid": "1", "size": 9,
                                                  "lfs": {"oid": sha, "size": 9, "pointerSize": 1}}])
    small(monkeypatch, "cc3m", Origin((), (HubFiles("models/me/captions", names),
                                          HubFiles("datasets/me/images", ("images.zip",), unpacked=True))))
    assert datasets.main("cc3m", None) == 0
    assert f"compared with sha256 {sha}" in capsys.readouterr().out
    listing("api/datasets/me/images/tree/main", [])
    assert datasets.main("cc3m", None) == 1
    assert "expected one file images.zip, found 0" in capsys.readouterr().err


def test_labelled_images_are_fetched_where_the_profile_looks_and_unpacked(
        server: RangeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    file, = LABELLED["cifar100"].files
    write(server.folder / file.name, {"cifar-100-binary/train.bin": b"1", "cifar-100-binary/test.bin": b"22"})
    md5 = hashlib.md5((server.folder / file.name).read_bytes()).hexdigest()
    served = replace(file, url=f"{server.address}/{file.name}", digest=Digest("md5", md5))
    monkeypatch.setitem(ORIGINS, "cifar100", Origin((served,)))
    folder = Path(read_yaml(ROOT / "conf/profiles/ufc-cifar100.yaml")["data"]["folder"])
    assert datasets.main("cifar100", None) == datasets.main("cifar100", None) == 0
    assert (folder / "cifar-100-binary/test.bin").read_bytes() == b"22" and len(server.ranges) == 1
    assert not (folder / file.name).exists()
    assert f"compared with md5 {md5}" in capsys.readouterr().out
    monkeypatch.setitem(ORIGINS, "cifar100", Origin((file,)))
    assert datasets.main("cifar100", Path("other")) == 1  # no such server can be reached
    assert not any(Path("other").iterdir())


def test_sums_of_labelled_images_are_md5s_of_the_official_files() -> None:
    files = {key: origin.files[0] for key, origin in LABELLED.items() if origin.files}
    assert {key: file.name for key, file in files.items()} == {
        "cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz",
        "tiny-imagenet": "tiny-imagenet-200.zip"}
    assert all(re.fullmatch("[0-9a-f]{32}", file.digest.value) and file.unpacked for file in files.values())


def test_imagenet_has_to_be_downloaded_by_hand(server: RangeServer, capsys: pytest.CaptureFixture) -> None:
    assert datasets.main("imagenet", None) == 1
    assert "download it from https://image-net.org" in capsys.readouterr().out
    Path("data/imagenet/train").mkdir()
    assert datasets.main("imagenet", None) == 0


@pytest.mark.parametrize("key", KNOWN)
def test_the_profiles_and_the_commands_mean_the_same_datasets(key: str, tmp_path: Path) -> None:
    entry = find_entry(tmp_path, key)
    assert entry == type(entry).model_validate(read_yaml(ROOT / "conf/profiles" / f"{key}.yaml")["data"])
    assert find_entry(tmp_path, KNOWN[key].name, tmp_path).folder == str(tmp_path)
    assert set(CAPTIONED) == set(KNOWN)


def test_the_readme_names_these_commands_and_entries_that_are_valid(tmp_path: Path) -> None:
    section = (ROOT / "repro/README.md").read_text("utf-8").split("## Data sets")[1].split("\n## ")[0]
    commands = [shlex.split(line, comments=True) for line in re.findall(r"^repro data .*$", section, re.MULTILINE)]
    assert {command[2] for command in commands} == {command.name for command in data_app.registered_commands}
    assert all(CliRunner().invoke(app, [*command[1:], "--help"]).exit_code == 0 for command in commands)
    assert set(CAPTIONED) < {command[3] for command in commands} <= {*ORIGINS, "mine", "NAME"}
    (tmp_path / "params.yaml").write_text(re.search(r"^data: .*$", section, re.MULTILINE)[0])
    own = find_entry(tmp_path, "mine")
    assert isinstance(own, OwnData) and own.folder == "data/mine"


def test_an_entry_is_found_beside_a_broken_file_of_another_profile_and_sets_of_classes_are_explained(
        tmp_path: Path) -> None:
    broken, classes = tmp_path / "profiles/broken/params.yaml", tmp_path / "profiles/ufc-cifar100/params.yaml"
    for path, text in ((broken, "data: [\n"), (classes, "data: {name: cifar100, folder: data/cifar100}\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert find_entry(tmp_path, "flickr30k").name == "flickr30k"
    with pytest.raises(ValueError, match=r"broken/params\.yaml, line 2: expected YAML"):
        find_entry(tmp_path, "broken")
    with pytest.raises(ValueError, match=r"no captions, .*`repro data fetch cifar100` brings it"):
        find_entry(tmp_path, "ufc-cifar100")
