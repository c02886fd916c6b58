"""Stage `prepare` on real sets: what it takes over, what it leaves where it is, and what it refuses."""

import hashlib
import json
from pathlib import Path

import pytest

from repblend.data.image_store import open_images
from repblend.data.karpathy import LayoutCaptions, read_annotations
from repblend.store import SOURCES
from tests import shaped
from tests.data.real import prepared, refusal, workspace_with

FLICKR = {"name": "flickr30k", "folder": "raw"}


def test_annotations_are_those_of_the_folder_and_images_are_read_where_they_lie(tmp_path: Path) -> None:
    raw = shaped.flickr30k(tmp_path / "raw", 6, 3, 4)
    out = prepared(workspace_with(tmp_path, FLICKR))
    assert read_annotations(out, "flickr30k", 60) == read_annotations(raw, "flickr30k", 60)
    assert {path.name for path in out.iterdir()} == {
        "flickr30k_train.json", "flickr30k_val.json", "flickr30k_test.json", "images.json", "manifest.json",
        "ATTRIBUTION.md"}
    store = open_images(out, tmp_path)
    for path in raw.rglob("*.jpg"):
        assert store.read(path.relative_to(raw).as_posix()) == path.read_bytes()
    assert "Flickr30K" in (out / "ATTRIBUTION.md").read_text("utf-8")


def test_the_manifest_holds_counts_and_the_hashes_of_the_files_it_was_made_of(tmp_path: Path) -> None:
    raw = shaped.coco(tmp_path / "raw", 6, 5, 7)
    data = {"name": "coco_karpathy", "folder": "raw", "expected": {"val": {"images": 5, "captions": 27}}}
    manifest = json.loads((prepared(workspace_with(tmp_path, data)) / "manifest.json").read_text())
    assert manifest["counts"] == {"train": {"images": 6, "captions": 30}, "val": {"images": 5, "captions": 27},
                                  "test": {"images": 7, "captions": 37}}
    assert manifest["sources"]["coco_karpathy_val.json"] == hashlib.sha256(
        (raw / "coco_karpathy_val.json").read_bytes()).hexdigest()


def test_captions_of_a_split_may_be_cut_earlier_and_only_first_images_kept(tmp_path: Path) -> None:
    """Captions of 30 words in the test split and its first images only, as published for COCO and LLaVA-cc3m."""
    raw = shaped.cc3m(tmp_path / "raw", 6, 3, 8)
    files = {split: f"captions_{split}zx2025.json" for split in ("train", "val", "test")}
    data = {"name": "cc3m", "folder": "raw", "annotations": files, "max_caption_words_of": {"test": 3}, "max_test": 5,
            "max_train": 4}
    read = read_annotations(prepared(workspace_with(tmp_path, data)), "cc3m", 60)
    whole = LayoutCaptions(dict.fromkeys(files, 60), [raw / file for file in files.values()]).read()
    assert (read.train, read.val) == (whole.train[:4], whole.val)
    assert [image.image for image in read.test] == [image.image for image in whole.test[:5]]
    for short, long in zip(read.test, whole.test[:5], strict=True):
        assert [caption.split(" ") for caption in short.captions] == [caption.split(" ")[:3] for caption in
                                                                      long.captions]


def test_shards_and_single_files_give_the_same_images(tmp_path: Path) -> None:
    raw = shaped.flickr30k(tmp_path / "raw", 6, 3, 4)
    contents = {path.relative_to(raw).as_posix(): path.read_bytes() for path in raw.rglob("*.jpg")}
    alone = json.loads((prepared(workspace_with(tmp_path / "alone", FLICKR | {"folder": str(raw)}))
                        / "images.json").read_text())["images"]
    shaped.pack_into_shards(raw, 5)
    out = prepared(workspace_with(tmp_path / "packed", FLICKR | {"folder": str(raw), "shards": "shards/*.tar"}))
    packed = json.loads((out / "images.json").read_text())["images"]
    assert {name: {key: image[key] for key in ("bytes", "sha256")} for name, image in packed.items()} == alone
    store = open_images(out, tmp_path)
    assert {name: store.read(name) for name in contents} == contents


def test_an_image_that_changed_since_it_was_prepared_is_refused_when_it_is_read(tmp_path: Path) -> None:
    raw = shaped.flickr30k(tmp_path / "raw", 6, 3, 4)
    store = open_images(prepared(workspace_with(tmp_path, FLICKR)), tmp_path)
    path = next(raw.rglob("*.jpg"))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=rf"{path.name}: the file's SHA-256 is not the one"):
        store.read(path.relative_to(raw).as_posix())


def test_a_profiles_workspace_names_folders_of_the_repository(tmp_path: Path) -> None:
    shaped.flickr30k(tmp_path / "raw", 6, 3, 4)
    (tmp_path / SOURCES).mkdir(parents=True)  # makes it a clone
    workspace = workspace_with(tmp_path / "profiles/flickr30k", FLICKR)
    images = json.loads((prepared(workspace) / "images.json").read_text())
    assert images["folder"] == "raw" and len(images["images"]) == 13


def test_wrong_counts_are_refused_with_both_numbers(tmp_path: Path) -> None:
    shaped.flickr30k(tmp_path / "raw", 6, 3, 4)
    said = refusal(workspace_with(tmp_path, FLICKR | {"expected": {
        "train": {"images": 29_000, "captions": 30}, "test": {"images": 4, "captions": 5000}}}))
    assert "train has 6 images, expected 29,000" in said and "test has 20 captions, expected 5,000" in said
    assert "train has 30" not in said and "test has 4" not in said


def test_missing_images_are_named_and_a_missing_folder_is_refused(tmp_path: Path) -> None:
    workspace = workspace_with(tmp_path, FLICKR)
    assert "data.folder" in refusal(workspace)
    raw = shaped.flickr30k(tmp_path / "raw", 20, 3, 4)
    gone = sorted(raw.rglob("*.jpg"))[:12]
    for path in gone:
        path.unlink()
    said = refusal(workspace)
    assert all(f"{path.name}: no such image" in said for path in gone[:10]) and "and 2 more" in said


def test_hashes_are_the_same_after_an_interruption(tmp_path: Path) -> None:
    """A journal cut in the middle of a line, as a killed run leaves it, is gone on with."""
    raw = shaped.flickr30k(tmp_path / "raw", 6, 3, 4)
    workspace = workspace_with(tmp_path, FLICKR)
    expected = (prepared(workspace) / "images.json").read_bytes()
    images = json.loads(expected)["images"]
    first, second, *_ = sorted(images)
    made_up = {"bytes": 1, "sha256": "of the journal"}

    def line(name: str, finding: dict) -> str:
        status = (raw / name).stat()
        return json.dumps({"file": name, "state": [status.st_size, status.st_mtime_ns], "finding": finding})

    purpose = json.dumps({"purpose": ["files", str(raw.resolve()), "hash_only"]})
    journal = workspace / "checkpoints/prepare/images.jsonl"
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_text("\n".join([purpose, line(first, made_up),
                                  line(second, images[second])[:40]]))
    resumed = json.loads((prepared(workspace) / "images.json").read_text())["images"]
    assert resumed == images | {first: made_up}  # what the journal says is believed
    (raw / first).touch()
    journal.write_text("\n".join([purpose, line(first, made_up)]) + "\n")
    (raw / first).write_bytes((raw / first).read_bytes())  # changed since: looked at again
    assert (prepared(workspace) / "images.json").read_bytes() == expected
