"""`repro data check` names every fault that was put into a set, and no other."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from repblend.data import image_index
from repblend.data.image_index import index_images
from repblend.data.source import DatasetReport, Source, check, source_of, write_manifest
from repblend.params.data import OwnData, RealData
from repro.fetch import datasets as data_check
from tests import shaped
from tests.data.real import ENTRY, prepared, refusal, workspace_with
from tests.tiny import tiny_content


def source(folder: Path, name: str = "flickr30k", **fields: Any) -> Source:
    kind = OwnData if "captions" in fields else RealData
    return source_of(kind.model_validate(ENTRY | {"name": name, "folder": str(folder)} | fields), folder)


def look(folder: Path, *arguments: Any, **fields: Any) -> DatasetReport:
    return check(source(folder, *arguments, **fields), folder / "journal.jsonl")


def edit(path: Path, change: Any) -> None:
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(change(rows) or rows))


@pytest.mark.parametrize(("make", "name", "fields"), [
    (shaped.flickr30k, "flickr30k", {}), (shaped.coco, "coco_karpathy", {}),
    (shaped.cc3m, "cc3m", {"annotations": {each: f"captions_{each}zx2025.json" for each in ("train", "val", "test")}})])
def test_a_whole_set_has_no_fault_and_the_counts_of_the_reader(make, name: str, fields, tmp_path: Path) -> None:
    report = look(make(tmp_path, 6, 5, 7), name, **fields)
    assert (report.problems, report.notes) == ([], [])
    assert report.counts == source(tmp_path, name, **fields).captions.read().counts()
    assert len(report.images) == 18


def test_every_fault_is_named_with_its_file_and_row(tmp_path: Path) -> None:
    raw = shaped.flickr30k(tmp_path, 6, 5, 7)
    train, val, test = (raw / f"flickr30k_{split}.json" for split in ("train", "val", "test"))
    images = sorted(path.name for path in raw.rglob("*.jpg"))

    def spoil_train(rows: list) -> None:
        rows[3]["caption"] = " . "
        rows[7]["caption"] = 5
        rows[11] = "no object"
        del rows[12]["image"]
        rows[20] = dict(rows[21])
        rows.append({"image": "../outside.jpg", "caption": "x", "image_id": 1})

    def spoil_val(rows: list) -> None:
        rows[1]["caption"][2] = ""
        rows[1]["caption"][4] = None
        rows[2]["caption"] = {"alone": 1}
        rows.append(rows[0])
        rows[3]["image"] = f"flickr30k-images/{images[0]}"

    edit(train, spoil_train)
    edit(val, spoil_val)
    (raw / "flickr30k-images" / images[1]).unlink()
    damaged = raw / "flickr30k-images" / images[2]
    damaged.write_bytes(damaged.read_bytes()[:300])
    test.write_text(test.read_text()[:-40])
    report = look(raw, expected={"val": {"images": 5}})
    expected = [
        (train, 3, "is empty after the clean-up"), (train, 7, "expected a caption to be text, found 5"),
        (train, 11, "expected an object"), (train, 12, "key 'image' is missing"), (train, 21, "already"),
        (train, 30, "outside the dataset's folder"),
        (val, 1, "''"), (val, 1, "found None"), (val, 2, "list of one or more"), (val, 5, "has a row already"),
        (val, 3, "stands in"),
        (train, 5, f"{images[1]}: no such image"),
        (train, 10, f"{images[2]}: expected a whole image file"),
    ]
    unmatched = list(report.problems)
    assert any(text.startswith(f"{test}, line 1: expected JSON") for text in unmatched)
    for path, row, words in expected:
        found = [text for text in unmatched if text.startswith(f"{path}, row {row}: ") and words in text]
        assert found, (path.name, row, words)
        unmatched.remove(found[0])
    rest = [text for text in unmatched if not text.startswith(f"{test}, line 1: expected JSON")]
    assert rest == [f"{raw}: val has 3 images, expected 5. Fetch the annotations again, or correct data.expected",
                    f"{raw}: no image in test; expected at least one. Add rows, or correct their splits"]


def test_repeats_are_no_fault_of_a_set_whose_counts_are_the_published_ones(tmp_path: Path) -> None:
    raw = shaped.flickr30k(tmp_path, 4, 2, 2)
    edit(raw / "flickr30k_train.json", lambda rows: rows[1].update(caption=rows[0]["caption"]))
    assert [text.split(": ")[0].endswith("row 1") for text in look(raw).problems] == [True]
    published = look(raw, expected={"train": {"images": 4, "captions": 20}})
    assert published.problems == [] and len(published.notes) == 1
    assert len(look(raw, expected={"train": {"images": 4, "captions": 21}}).problems) == 2


def test_a_file_of_ones_own_is_not_replaced_by_the_manifest(tmp_path: Path) -> None:
    raw = shaped.flickr30k(tmp_path / "raw", 6, 3, 4)
    (raw / "manifest.json").write_text('[{"image": "a.jpg", "caption": "a"}]')
    with pytest.raises(ValueError, match=r"manifest\.json: expected what `repro data check` writes.*Rename it"):
        look(raw)
    assert "found another file" in refusal(workspace_with(tmp_path, {"name": "flickr30k", "folder": "raw"}))


def test_what_was_found_of_one_copy_is_not_believed_of_another(tmp_path: Path) -> None:
    """A copy that keeps times of change, as `rsync -a` makes it, and has a damaged image of the same size."""
    raw, journal = shaped.flickr30k(tmp_path / "raw", 6, 3, 4), tmp_path / "journal.jsonl"
    assert check(source(raw), journal).problems == []
    shutil.copytree(raw, tmp_path / "copy")
    image = next((tmp_path / "copy").rglob("*.jpg"))
    status = image.stat()
    image.write_bytes(bytes(status.st_size))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [image.name in problem for problem in check(source(tmp_path / "copy"), journal).problems] == [True]


def test_faults_of_shards_are_named(tmp_path: Path) -> None:
    raw = shaped.flickr30k(tmp_path, 6, 3, 4)
    names = sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*.jpg"))
    (raw / names[0]).write_bytes(b"no image")
    first, second, third = shaped.pack_into_shards(raw, 5)
    (raw / third).write_bytes((raw / third).read_bytes()[:1000])
    (raw / "shards/00009.tar").write_bytes((raw / second).read_bytes())
    report = look(raw, shards="shards/*.tar")
    text = "\n".join(report.problems)
    assert f"{first}, member {names[0]}: expected a whole image file" in text
    assert f"{raw / third}: expected a whole archive" in text
    for name in names[5:10]:
        assert f"00009.tar, member {name}: {second} has it too" in text
    with pytest.raises(ValueError, match="no file fits"):
        look(raw, shards="tars/*.tar")


def test_a_look_at_shards_goes_on_after_the_last_one_that_was_read(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = shaped.flickr30k(tmp_path, 6, 3, 4)
    names = [path.relative_to(raw).as_posix() for path in raw.rglob("*.jpg")]
    shards = shaped.pack_into_shards(raw, 5)
    whole = index_images(raw, "shards/*.tar", names, tmp_path / "whole", decoded=True)
    opened, really_read = [], image_index.tar_members

    def open_until(last: int):
        def counted(path: Path, inside: Path):
            opened.append(path.relative_to(raw).as_posix())
            if len(opened) > last:
                raise KeyboardInterrupt
            return really_read(path, inside)
        return counted

    monkeypatch.setattr(image_index, "tar_members", open_until(2))
    with pytest.raises(KeyboardInterrupt):
        index_images(raw, "shards/*.tar", names, tmp_path / "journal", decoded=True)
    opened.clear()
    monkeypatch.setattr(image_index, "tar_members", open_until(99))
    assert index_images(raw, "shards/*.tar", names, tmp_path / "journal", decoded=True) == whole
    assert opened == shards[2:] and whole.problems == {}
    opened.clear()
    index_images(raw, "shards/*.tar", names[1:], tmp_path / "journal", decoded=True)  # other images: from the start
    assert opened == shards


def test_members_that_lead_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for name in ("../a.jpg", "/etc/b.jpg", "c/../../d.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    index = index_images(tmp_path, "*.tar", ["../a.jpg", "a.jpg"], tmp_path / "journal", decoded=True)
    assert index.images == {}
    assert [name for name, text in index.problems.items() if "lies outside" in text] == [
        "../a.jpg", "/etc/b.jpg", "c/../../d.jpg"]


def test_a_manifest_spares_prepare_the_hashing_of_files_that_have_their_size(tmp_path: Path) -> None:
    raw = shaped.flickr30k(tmp_path / "raw", 6, 3, 4)
    workspace = workspace_with(tmp_path, {"name": "flickr30k", "folder": "raw"})
    hashed = (prepared(workspace) / "images.json").read_bytes()
    write_manifest(source(raw), look(raw))
    path = next(raw.rglob("*.jpg"))
    path.write_bytes(path.read_bytes()[::-1])
    assert (prepared(workspace) / "images.json").read_bytes() == hashed
    path.write_bytes(path.read_bytes() + b"x")
    again = json.loads((prepared(workspace) / "images.json").read_text())["images"]
    assert {name for name, record in again.items() if record != json.loads(hashed)["images"][name]} == {
        path.relative_to(raw).as_posix()}


def test_the_command_exits_with_1_and_lists_faults_then_with_0_and_a_manifest(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    data = {"name": "mine", "folder": "raw", "captions": "all.json", "num_val": 2, "num_test": 2}
    workspace_with(tmp_path, data)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    raw = shaped.flickr30k(tmp_path / "raw", 6, 3, 4)
    rows = json.loads((raw / "flickr30k_train.json").read_text())
    (raw / "all.json").write_text(json.dumps(rows))
    assert data_check.check_main("mine", None) == 1  # nothing is wrong with it, but it is too small
    assert "grid.budgets: 50 is more than the 2 training images" in capsys.readouterr().out
    workspace_with(tmp_path, data, grid=tiny_content()["grid"] | {"budgets": [2], "distilled": []})
    (raw / "manifest.json").unlink()
    (raw / "all.json").write_text(json.dumps([*rows, {"image": "gone.jpg", "caption": "gone"}]))
    assert data_check.check_main("mine", None) == 1
    printed = capsys.readouterr().out
    assert "gone.jpg: no such image" in printed and "1 to mend" in printed and not (raw / "manifest.json").exists()
    (raw / "all.json").write_text(json.dumps(rows))
    assert data_check.check_main("mine", None) == 0
    assert "train 2 images with 10 captions" in capsys.readouterr().out
    assert len(json.loads((raw / "manifest.json").read_text())["images"]) == 6
    assert data_check.check_main("unheard-of", None) == 1
    assert "expected flickr30k, coco, cc3m" in capsys.readouterr().err
