"""The profiles of Flickr30K and COCO, as composed but for their size, on small sets of the same layouts: from images to
the rows of Tables 1 and 2, with a tiny encoder.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from repblend.data.features import read_features
from repblend.matching.synthetic_set import SyntheticSet
from repblend.records.base import RECALLS
from repblend.report.grid_records import GridRecords
from repblend.report.results import results_table
from repblend.stages import distill, encode, evaluate, experts, prepare, select
from repblend.stages.pipeline import Context
from repblend.store import read_json
from repro.profiles import compose
from tests import shaped
from tests.tiny import ROOT

pytestmark = pytest.mark.runs

SMALL = ("compute.threads=1", "compute.device=cpu", "data.image_size=32",
         "encode.image_encoder=efficientnet_lite0",
         "encode.text_encoder=all-MiniLM-L6-v2", "encode.views.num=1", "heads.width=16", "experts.num=1",
         "experts.epochs=2", "grid.budgets=[100]", "grid.coresets=[random]", "grid.encoder_distilled=[]",
         "grid.distilled=[repblend]", "grid.encoder_coresets=[]", "grid.compared_budgets=[]",
         "distill.common.iterations=2", "distill.common.validate_every=1", "evaluate.num_seeds=2",
         "evaluate.distilled={epochs:2,scored_intervals:2}", "evaluate.coresets={epochs:2,scored_intervals:2}")
"""What the sets and this machine are too small for; all else is as published."""
STAGES: tuple[tuple[ModuleType, str, str | None], ...] = (
    (prepare, "prepare", None), (encode, "encode", None), (experts, "experts", None), (select, "select", "random-100"),
    (distill, "distill", "repblend-100"), (evaluate, "evaluate", "random-100"), (evaluate, "evaluate", "repblend-100"))


@pytest.mark.parametrize(("profile", "make", "num_captions"), [
    ("flickr30k", shaped.flickr30k, 60), ("coco", shaped.coco, 62)])
def test_a_set_of_the_real_layout_goes_through_the_published_settings(profile: str, make: Callable, num_captions: int,
                                                                      tmp_path: Path) -> None:
    counts = {"train": (100, 500), "val": (12, num_captions), "test": (12, num_captions)}
    expected = [f"data.expected.{split}={{images:{images},captions:{captions}}}"
                for split, (images, captions) in counts.items()]
    _, params = compose(ROOT, profile, [*SMALL, *expected])
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    make(tmp_path / params["data"]["folder"], 100, 12, 12, size=32)
    for module, stage, cell in STAGES:
        module.run(Context.of(tmp_path, stage, cell))
    assert read_features(tmp_path / "features").test.texts.shape == (num_captions, 384)
    synthetic = SyntheticSet.read(tmp_path / "sets/repblend-100.safetensors")
    assert synthetic.images.shape == (99, 3, 32, 32)  # the similarity counts as one pair
    metrics = GridRecords.of(tmp_path)
    shown = {row.cells[1]: row.cells for row in results_table(metrics, "faithful").rows if row.cells[0] == 100}
    for method, name in (("RepBlend", "repblend-100"), ("Random", "random-100")):
        mean = read_json(tmp_path / f"records/evaluate/{name}/record.json")["protocols"]["faithful"]["mean"]
        assert [number.mean for number in shown[method][3:]] == [mean[recall] for recall in RECALLS]
