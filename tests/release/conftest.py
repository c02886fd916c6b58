"""A tiny workspace with one evaluated set, and the folder that it is released as."""

from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from repblend.data.features import read_features
from repblend.grid import Cell
from repblend.matching.similarity import LowRankSimilarity
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params, read_params
from repblend.records.base import Imported
from repblend.records.outputs import Distilled
from repblend.release.folder import Release
from repblend.runtime.context import Paths
from repblend.runtime.provenance import provenance
from repblend.stages import encode, evaluate, prepare
from repblend.stages.pipeline import Context
from tests.locked import lock_everything
from tests.tiny import tiny_content

CELL = Cell("repblend", 50)
NUM_PAIRS = 6


def write_params(folder: Path) -> Params:
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(tiny_content(), file)
    return read_params(folder / "params.yaml")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, features, and an evaluated set with a similarity that is no identity and texts that are no caption's."""
    folder = tmp_path_factory.mktemp("workspace")
    paths, params = Paths(folder), write_params(folder)
    for stage in (prepare, encode):
        stage.run(Context(stage.__name__.rpartition(".")[2], None, params, paths))
    draws, features = torch.Generator().manual_seed(0), read_features(paths.features)
    similarity = LowRankSimilarity(torch.ones(NUM_PAIRS), torch.randn(NUM_PAIRS, 2, generator=draws) / 3,
                                   torch.randn(NUM_PAIRS, 2, generator=draws) / 3, 1.0)
    texts = features.train_texts[:NUM_PAIRS] + 0.02 * torch.randn(NUM_PAIRS, 384, generator=draws)
    images = torch.randn(NUM_PAIRS, 3, 32, 32, generator=draws)
    SyntheticSet(images, texts, similarity, 0.05, 0.04, {"loss": "infonce", "cell": CELL.to_json()}).write(
        paths.set(CELL))
    context = Context("distill", CELL, params, paths)
    Distilled(cell=CELL.record, num_pairs=NUM_PAIRS, imported=Imported(files={"set": "0" * 64}, sha256="0" * 64),
              specimens=[], definitions={}, provenance=provenance(context, [])).write(paths.record("distill", CELL))
    evaluate.run(Context("evaluate", CELL, params, paths))
    lock_everything(folder)
    return folder


@pytest.fixture(scope="module")
def released(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released") / "set"
    Release.of(CELL, Paths(workspace)).write(folder)
    return folder
