"""A set of one's own, which is not OpenMoji, from a folder and a file of captions to an evaluated coreset."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from repblend.data.features import read_features
from repblend.data.karpathy import read_annotations
from repblend.data.own import OwnCaptions
from repblend.encoders.registry import load_image_encoder, load_text_encoder
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import read_params
from repblend.params.reading import read_yaml
from repblend.runtime.settings import write_settings
from repblend.stages import encode, evaluate, prepare, select, transfer
from repblend.stages.pipeline import Context
from repblend.stages.prepare import counts_ahead
from repblend.store import read_json
from tests import shaped
from tests.data.real import workspace_with

ROOT = Path(__file__).parents[2]
WORDS = {"train": 60, "val": 60, "test": 60}


def own_folder(folder: Path, split_column: bool = False) -> Path:
    """Forty images with two captions each, in a CSV file."""
    shaped.flickr30k(folder, 24, 6, 10, size=32)
    rows = [{"image": row["image"], "caption": caption, "split": split} for split in ("train", "val", "test")
            for row in json.loads((folder / f"flickr30k_{split}.json").read_text())
            for caption in ([row["caption"]] if split == "train" else row["caption"])]
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "caption", "split"][:3 if split_column else 2], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    for path in folder.glob("*.json"):
        path.unlink()
    return folder


def own(file: Path, num_val: int | None = None, num_test: int | None = None, **words: int) -> OwnCaptions:
    return OwnCaptions(WORDS | words, [file], num_val, num_test, folder=file.parent)


def run(workspace: Path, module: Any, stage: str, cell: str | None = None) -> None:
    module.run(Context.of(workspace, stage, cell))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One entry in `params.yaml`, and the stages up to an evaluated coreset."""
    folder = tmp_path_factory.mktemp("own")
    own_folder(folder / "pictures")
    workspace_with(folder, {"name": "pictures", "folder": "pictures", "captions": "captions.csv", "num_val": 6,
                            "num_test": 10}, transfer={"architectures": [], "num_icons": 12})
    for module, stage, cell in ((prepare, "prepare", None), (encode, "encode", None), (select, "select", "random-20"),
                                (evaluate, "evaluate", "random-20")):
        run(folder, module, stage, cell)
    return folder


def test_a_folder_and_a_csv_file_become_an_evaluated_coreset(workspace: Path) -> None:
    annotations = read_annotations(workspace / "data/prepared", "pictures", 60)
    assert [len(split) for split in (annotations.train, annotations.val, annotations.test)] == [24, 6, 10]
    features = read_features(workspace / "features")
    encoder, texts = load_image_encoder("efficientnet_lite0", 32), load_text_encoder("all-MiniLM-L6-v2")

    def seen(name: str) -> torch.Tensor:
        """One image as the encoder takes it, by its definition."""
        image = Image.open(workspace / "pictures" / name).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
        pixels = torch.tensor(np.array(image)).permute(2, 0, 1) / 255
        return (pixels - encoder.mean.view(3, 1, 1)) / encoder.std.view(3, 1, 1)

    expected = torch.cat([encoder.encode(seen(image.image)[None]) for image in annotations.test])
    assert torch.allclose(features.test.images, expected, atol=1e-4)
    chosen = read_json(workspace / "records/select/random-20/record.json")["pairs"]
    synthetic = SyntheticSet.read(workspace / "sets/random-20.safetensors")
    for number in (0, 7, 19):
        assert torch.allclose(synthetic.images[number], seen(chosen[number]["image"]), atol=1e-6)
        assert torch.allclose(synthetic.texts[number], texts.encode([chosen[number]["caption"]])[0], atol=1e-5)
    held_out = read_json(workspace / "records/evaluate/random-20/record.json")["protocols"]["held-out"]
    assert len(held_out["seeds"]) == 3 and 0 < held_out["mean"]["mean_recall"] <= 100


def test_transfer_leaves_out_ten_words_where_no_image_fits_and_says_so(
        workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Here every image has all of the most frequent words: those of the sentences around the shapes."""
    run(workspace, transfer, "transfer", "random-20")
    assert read_json(workspace / "records/transfer/random-20/record.json")["zero_shot"]["ten-words"] is None
    assert "transfer random-20: left out the task of ten words. none of 10 test images has exactly one" in caplog.text


def test_what_does_not_fit_the_captions_is_refused_before_an_image_is_read(tmp_path: Path) -> None:
    own_folder(tmp_path / "pictures")
    for image in (tmp_path / "pictures").rglob("*.jpg"):
        image.unlink()
    data = {"name": "pictures", "folder": "pictures", "captions": "captions.csv", "num_val": 6, "num_test": 10}
    experts = read_yaml(ROOT / "params.yaml")["experts"] | {"min_steps": 0, "epochs": 1, "batch_size": 20}
    grid = read_yaml(ROOT / "params.yaml")["grid"] | {"budgets": [20]}
    cells = read_yaml(ROOT / "params.yaml")["distill"] | {
        "cells": {"repblend-20": {}, "repblend-without-blending-20": {}}}
    workspace_with(tmp_path, data, experts=experts, grid=grid, distill=cells)
    with pytest.raises(ValueError, match=r"snapshots 0 to 0, but distill needs snapshot 7 .* raise experts\.epochs"):
        write_settings(Context.pipeline, tmp_path)
    assert counts_ahead(read_params(tmp_path / "params.yaml").data, tmp_path)["train"] == {
        "images": 24, "captions": 120}
    assert not (tmp_path / "settings").exists()


def test_a_column_decides_the_split_where_there_is_one(tmp_path: Path) -> None:
    read = own(own_folder(tmp_path, split_column=True) / "captions.csv").read()
    assert [len(split) for split in (read.train, read.val, read.test)] == [24, 6, 10]
    assert {len(image.captions) for image in read.train + read.val} == {5}


def test_csv_and_json_of_either_form_say_the_same(tmp_path: Path) -> None:
    rows = [("a.jpg", "One, two"), ("b.jpg", "three"), ("a.jpg", 'qu"ote'), ("c.jpg", "é"), ("d.jpg", "x")]
    with (tmp_path / "all.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("caption", "image"), *((caption, image) for image, caption in rows)])
    flat = [{"image": image, "caption": caption} for image, caption in rows]
    grouped = [{"image": name, "caption": [caption for image, caption in rows if image == name]} for name in
               dict.fromkeys(image for image, _ in rows)]
    for name, content in (("flat", flat), ("grouped", grouped)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    read = [own(tmp_path / name, 1, 1).read() for name in ("all.csv", "flat.json", "grouped.json")]
    assert read[0] == read[1] == read[2]
    everything = {image.image: image.captions for split in vars(read[0]).values() for image in split}
    assert everything == {"a.jpg": ("one, two", "qu ote"), "b.jpg": ("three",), "c.jpg": ("é",), "d.jpg": ("x",)}


def test_the_hash_decides_the_split_by_the_images_names_alone(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(50)]
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    for seed, order in enumerate((names, names[::-1])):
        path = tmp_path / f"{seed}.json"
        path.write_text(json.dumps([{"image": name, "caption": "x"} for name in order]))
        read = own(path, 7, 11).read()
        assert {image.image for image in read.val} == set(ordered[:7])
        assert {image.image for image in read.test} == set(ordered[7:18])
        assert [image.image for image in read.train] == [name for name in order if name in ordered[18:]]


def test_words_of_a_split_are_cut_whichever_way_it_is_decided(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text(json.dumps([{"image": f"{number}.jpg", "caption": "a b c d e"} for number in range(9)]))
    read = own(path, 3, 3, test=2).read()
    assert {image.captions for image in read.test} == {("a b",)}
    assert {image.captions for image in read.train + read.val} == {("a b c d e",)}


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.csv", "image,text\na.jpg,x\n", "line 1: expected the columns image and caption, found 'image, text'"),
    ("a.csv", "", "line 1: expected the columns"),
    ("a.csv", "image,caption\na.jpg,one, two\n", "line 2: has more fields"),
    ("a.csv", "image,caption\na.jpg\n", "line 2: expected a caption, or a list of them, found None"),
    ("a.csv", 'image,caption\na.jpg,"x\n', "line 2: expected fields between commas"),
    ("a.csv", "image,caption\na.jpg,.\n", "line 2: caption '.' is empty"),
    ("a.csv", "image,caption\na.jpg,\u200b\n", "line 2: caption '\\u200b' is empty"),
    ("a.csv", 'image,caption\na,"x\nb,y\nc,"\nd,z\n', "line 2: a field goes on over further rows"),
    ("a.csv", 'image,caption\ra.jpg,"x\rb.jpg,y"\r', "line 2: a field goes on over further rows"),
    ("a.csv", 'caption,image\n"x,a.jpg\ny",b.jpg\n', "line 2: a field goes on over further rows"),
    ("a.csv", "image,caption\na.jpg," + "x" * 200_000 + "\n", "line 2: a field has more than 131,072 characters"),
    ("a.csv", "image,caption\na.jpg,x\0y\n", "line 2: expected UTF-8 text, but it has a zero byte"),
    ("a.csv", "image,caption\n", "has no row"), ("a.jsonl", "\n", "has no row"),
    ("a.csv", "image|caption\na.jpg|x\n", "line 1: the columns are separated by bars"),
    ("a.csv", '[{"image": "a.jpg", "caption": "x"}]', "line 1: begins as JSON"),
    ("a.csv", "<!DOCTYPE html><html>", "it is a web page"),
    ("a.json", "version https://git-lfs.github.com/spec/v1", "it is a Git LFS pointer"),
    ("a.json", '[{"image": "a.jpg", "caption": "x\\u0000"}]', "row 0: expected a caption to be text"),
    ("a.json", '[{"image": "a.jpg", "caption": "' + "x" * 200_000 + '"}]', "row 0: a caption of 200,000 characters"),
    ("a.json", '[{"image": "' + "x" * 2000 + '", "caption": "x"}]', "row 0: expected 'image' to be a path"),
    ("a.csv", "image,caption\n../a.jpg,x\n", "line 2: image '../a.jpg' lies outside"),
    ("a.csv", "image,caption,split\na.jpg,x,train\n", "line 2: names the split 'train', but"),
    ("a.csv", "image,caption\na.jpg,x\n", "1 images leave none for train and test"),
    ("a.json", '[{"image": "a.jpg"}]', "row 0: expected a caption"),
    ("a.json", '["a.jpg"]', "row 0: expected an object"),
    ("a.json", '[{"image": "a.jpg", "caption": "x"} {"image": "b.jpg", "caption": "x"}]', "line 1: expected JSON"),
    ("a.json", '[{"image": "a.jpg", "caption": "x"}', "line 1: expected JSON"),
    ("a.json", '{"image": "a.jpg", "caption": "x"}', "expected a list of rows with at least one row, found dict"),
    ("a.json", "[]", "found an empty list"),
    ("a.json", '[{"image": "a.jpg", "caption": "\udcff"}]', "expected UTF-8"),
])
def test_a_bad_row_is_named_with_its_file_and_line(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, "utf-8", "surrogateescape")
    with pytest.raises(ValueError) as caught:
        own(tmp_path / name, 1, 1).read()
    assert f"{tmp_path / name}" in str(caught.value) and words in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_caption_of_two_lines_between_quotes_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'image,caption\r\na,x\r\nb,"y\r\nz"\r\nc,w\r\n')
    read = own(tmp_path / "a.csv", 1, 1).read()
    assert {image.captions[0].split() == ["y", "z"] for split in vars(read).values() for image in split
            if image.image == "b"} == {True}


@pytest.mark.parametrize(("rows", "words"), [
    ([("a.jpg", "test"), ("b.jpg", "tset")], "expected 'split' to be train, val or test, found 'tset'"),
    ([("a.jpg", "test"), ("a.jpg", "val")], "row 1: image 'a.jpg' stands in test too"),
    ([("a.jpg", None)], "found None"),
])
def test_a_bad_split_is_named(rows: list, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"image": image, "caption": "x", "split": split}
                                                 for image, split in rows]))
    with pytest.raises(ValueError, match=words):
        own(tmp_path / "a.json").read()
