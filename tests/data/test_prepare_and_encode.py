"""The stages `prepare` and `encode` on a small set: what they write, and that they write the same bytes again."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from repblend.data.features import read_features
from repblend.data.image_store import FolderStore
from repblend.data.images import normalise
from repblend.data.karpathy import read_annotations
from repblend.data.views import CropOfSquare, ViewSource
from repblend.encoders.hub import identifying_files
from repblend.encoders.registry import load_image_encoder, load_text_encoder
from repblend.params import Params
from repblend.params.reading import read_yaml
from repblend.runtime.context import Paths
from repblend.runtime.provenance import work_fingerprint
from repblend.stages import encode
from repblend.stages.pipeline import Context
from tests import forked
from tests.tiny import tiny_content

ROOT = Path(__file__).parents[2]
VAL, TEST, TRAIN, VIEWS, SIZE = 5, 6, 12, 3, 32


def run_stages(workspace: Path, *stages: str) -> Path:
    """Run stages with the repository's parameters on a smaller set."""
    write_params(workspace)
    for stage in stages:
        code, printed = forked.run(workspace, stage)
        assert code == 0, printed
    return workspace


def write_params(workspace: Path, **encode: object) -> None:
    params = read_yaml(ROOT / "params.yaml")
    params["data"] |= {"num_val": VAL, "num_test": TEST, "max_train": TRAIN, "image_size": SIZE}
    params["compute"] |= {"threads": 1, "encoder_chunk": 5}
    params["encode"] |= encode
    params["encode"]["views"]["num"] = VIEWS
    params["grid"] |= {"budgets": [TRAIN - 2], "distilled": []}
    workspace.mkdir(exist_ok=True)
    (workspace / "params.yaml").write_text(json.dumps(params))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_stages(tmp_path_factory.mktemp("workspace"), "prepare", "encode")


def hashes(workspace: Path) -> dict[str, str]:
    """SHA-256 of everything that DVC tracks."""
    files = [path for folder in ("data", "features", "records") for path in (workspace / folder).rglob("*")]
    return {path.relative_to(workspace).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
            if path.is_file()}


def test_another_run_writes_the_same_bytes(workspace: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere"
    write_params(again)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]),
                                "PYTHONHASHSEED": "4321", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    for stage in ("prepare", "encode"):
        subprocess.run([sys.executable, "-m", "repblend.stages", stage], cwd=again, env=environment, check=True)
    assert hashes(again) == hashes(workspace)
    assert len(hashes(workspace)) == VAL + TEST + TRAIN + 3 + 2 + 4 + 2


def test_records_give_counts_shapes_and_hashes(workspace: Path) -> None:
    prepared = json.loads((workspace / "records/prepare.json").read_text("utf-8"))
    assert {split: counts["images"] for split, counts in prepared["counts"].items()} == {
        "train": TRAIN, "val": VAL, "test": TEST}
    assert {f"data/prepared/{name}": value for name, value in prepared["sha256"].items()}.items() <= (
        hashes(workspace).items())
    encoded = json.loads((workspace / "records/encode.json").read_text("utf-8"))
    assert encoded["train"] == {"views": [VIEWS, TRAIN, 1280],
                                "captions": [prepared["counts"]["train"]["captions"], 384]}
    assert {f"features/{name}": value for name, value in encoded["sha256"].items()}.items() <= hashes(workspace).items()
    assert encoded["provenance"]["inputs"] == {
        "data/prepared/manifest.json": prepared["sha256"]["manifest.json"]}


def test_features_are_those_of_each_image_view_and_caption(workspace: Path) -> None:
    """One image and one caption at a time, from the files."""
    features = read_features(workspace / "features")
    annotations = read_annotations(workspace / "data/prepared", "openmoji", 60)
    image_encoder, text_encoder = load_image_encoder("efficientnet_lite0", SIZE), load_text_encoder("all-MiniLM-L6-v2")
    names = [image.image for image in annotations.train]
    source = ViewSource(FolderStore(workspace / "data/prepared"), names, SIZE, CropOfSquare(SIZE, 0.5, 0.5), seed=0)
    for view in range(VIEWS):
        pixels = torch.stack([source.view(number, view) for number in range(len(names))])
        shown = normalise(pixels, image_encoder.mean, image_encoder.std)
        with torch.no_grad():
            expected = torch.cat([image_encoder.encode(image[None]) for image in shown])
        assert torch.allclose(features.train_images[view], expected, atol=1e-4)
    assert not torch.allclose(features.train_images[0], features.train_images[1], atol=1e-2)

    pairs = [(number, caption) for number, image in enumerate(annotations.test) for caption in image.captions]
    assert features.test.text_to_image.tolist() == [number for number, _ in pairs]
    expected = torch.cat([text_encoder.encode([caption]) for _, caption in pairs])
    assert torch.allclose(features.test.texts, expected, atol=1e-5)


def test_a_damaged_image_stops_encode_and_leaves_no_features(workspace: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    for name in ("data", "records", "settings"):
        if (workspace / name).is_dir():
            shutil.copytree(workspace / name, damaged / name)
    write_params(damaged)
    (damaged / "records/encode.json").unlink()
    image = sorted((damaged / "data/prepared/images").iterdir())[3]
    image.write_bytes(image.read_bytes()[:200])
    code, printed = forked.run(damaged, "encode")
    assert code == 1
    assert f"{image.name}: expected a whole image file" in printed
    assert "Traceback" not in printed
    assert not (damaged / "features").exists() and not (damaged / "records/encode.json").exists()


def test_a_killed_run_goes_on_where_it_stopped_to_the_same_bytes(workspace: Path, tmp_path: Path) -> None:
    expected = hashes(workspace)
    folder = tmp_path / "killed"
    shutil.copytree(workspace, folder)
    shutil.rmtree(folder / "features")
    (folder / "records/encode.json").unlink()
    stage = forked.start(folder, "encode")
    while not list(folder.glob("checkpoints/encode/*/journal.json")) and stage.process.is_alive():
        time.sleep(0.001)
    stage.process.kill()
    assert stage.finish()[0] == -signal.SIGKILL and not (folder / "features").exists()
    run_stages(folder, "encode")
    assert hashes(folder) == expected
    assert list((folder / "checkpoints/encode").iterdir()) == []
    done = re.search(r"encode train_images.safetensors: (\d+) image done", (folder / "logs/encode.log").read_text())
    assert int(done[1]) < TRAIN * VIEWS


def test_what_another_encoder_left_unfinished_is_not_gone_on_with(tmp_path: Path) -> None:
    """Weights in a folder of one's own, or fetched again from the hub, may be others under the same name."""
    weights, record = tmp_path / "mine/model.safetensors", tmp_path / "conf/checkpoints/owner--name.json"
    for file in (weights, record):
        file.parent.mkdir(parents=True)
        file.write_text("old")
    content = tiny_content()
    content["encode"] |= {"image_encoder": f"timm:local-dir:{weights.parent}",
                          "text_encoder": "transformers:owner/name"}
    context = Context("encode", None, Params.model_validate(content), Paths(tmp_path))

    def unfinished() -> Path:
        names = [content["encode"][key] for key in ("image_encoder", "text_encoder")]
        fingerprint = work_fingerprint(context, identifying_files(names, tmp_path))
        return encode._unfinished(context.paths.checkpoint("encode", fingerprint))

    first = unfinished()
    assert unfinished() == first and first.is_dir()
    for file in (weights, record):
        file.write_text("new")
        assert unfinished() != first and not first.exists()
        file.write_text("old")


def test_float16_halves_the_training_features_and_rounds_them(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(workspace, folder)
    write_params(folder, storage="float16")
    code, printed = forked.run(folder, "encode")
    assert code == 0, printed
    full, half = (read_features(place / "features") for place in (workspace, folder))
    assert half.train_images.dtype == half.train_texts.dtype == torch.float16
    assert torch.equal(half.train_images, full.train_images.half())
    assert torch.equal(half.train_texts, full.train_texts.half())
    assert torch.equal(half.val.images, full.val.images) and torch.equal(half.test.texts, full.test.texts)
    rows = torch.tensor([3, 1])
    assert torch.equal(half.texts_of(rows), full.train_texts[rows].half().float())
    assert torch.equal(half.images_of(rows), full.train_images[0, rows].half().float())
