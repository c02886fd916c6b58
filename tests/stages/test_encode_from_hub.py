"""Stage `encode` with encoders of the hub: offline from the clone's folder, and what its metrics say of them."""

import json
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf

from repblend.data.features import read_features
from repblend.data.image_store import FolderStore
from repblend.data.images import normalise, read_images
from repblend.data.karpathy import read_annotations
from repblend.encoders.hub import checkpoint_of
from repblend.encoders.registry import PUBLISHED_MEAN, PUBLISHED_STD
from repblend.store import read_json, sha256
from tests import forked
from tests.checkpoints import REVISION, put, seeded, write_bert
from tests.tiny import tiny_content

IMAGES, TEXTS = "timm:owner/tiny-resnet", "transformers:owner/tiny-bert"


def build() -> torch.nn.Module:
    return seeded(lambda: timm.create_model("test_resnet"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared workspace, whose encoders are not there yet."""
    folder = tmp_path_factory.mktemp("encode-from-hub")
    content = tiny_content()
    content["encode"] |= {"image_encoder": IMAGES, "text_encoder": TEXTS}
    content["grid"] |= {"budgets": [10], "distilled": []}
    (folder / "params.yaml").write_text(json.dumps(content))
    code, printed = forked.run(folder, "prepare")
    assert code == 0, printed
    return folder


def test_features_are_those_of_the_hubs_encoders_and_the_metrics_name_their_bytes(workspace: Path,
                                                                                  tmp_path: Path) -> None:
    code, printed = forked.run(workspace, "encode")
    assert code == 1 and f"`repro checkpoints fetch {IMAGES}`" in printed
    for name in ("images", "texts"):
        (tmp_path / name).mkdir()
    save_for_hf(build(), tmp_path / "images", safe_serialization=True)
    write_bert(TEXTS, tmp_path / "texts")
    put(IMAGES, tmp_path / "images", workspace)
    put(TEXTS, tmp_path / "texts", workspace)
    code, printed = forked.run(workspace, "encode")
    assert code == 0, printed
    used = read_json(workspace / "records/encode.json")["provenance"]["checkpoints"]
    assert used == {name: {"repository": name.split(":")[1], "revision": REVISION, "sha256": {
        file.name: sha256(folder / file.name) for file in checkpoint_of(name).files}}
        for name, folder in ((IMAGES, tmp_path / "images"), (TEXTS, tmp_path / "texts"))}
    data = workspace / "data/prepared"
    images = [each.image for each in read_annotations(data, "openmoji", 60).val]
    pixels = normalise(read_images(FolderStore(data), images, 32), *map(torch.tensor, (PUBLISHED_MEAN, PUBLISHED_STD)))
    with torch.no_grad():
        expected = build().forward_features(pixels).mean((2, 3))
    found = read_features(workspace / "features").val
    assert found.texts.shape[1] == 16 and (found.images - expected).abs().max() < 1e-4 * expected.abs().max()
