"""From a data set in COCO's layout to the paper's Table 2, by one choice of a profile and with encoders from the hub.

The set is drawn, the encoders are tiny and have random weights: what comes out is no result, but everything is done.
Flickr30K's way to Table 1 is tested in `test_profiles.py`, real pairs in `tests/stages/test_published_profiles.py`.
"""

import csv
import json
from pathlib import Path

import pytest
import timm
from timm.models import save_for_hf
from transformers import BertConfig, BertModel, BertTokenizerFast

from repblend.data.source import check, source_of, write_manifest
from repblend.params import read_params
from repblend.store import read_json
from tests import shaped
from tests.checkpoints import seeded
from tests.end_to_end.workspace import Workspace

pytestmark = pytest.mark.runs

IMAGE_MODEL, TEXT_WIDTH = "test_nfnet", 16
SMALL = {
    "data.image_size": 64, "compute.threads": 1, "compute.device": "cpu", "encode.views.num": 2, "heads.width": 16,
    "grid.budgets": [100], "grid.coresets": ["random"], "grid.encoder_coresets": [], "grid.encoder_distilled": [],
    "grid.encoder_variants": [], "grid.variants_budget": 100,
    "transfer.architectures": [], "select.warm_up.epochs": 1, "distill.common.iterations": 3,
    "distill.common.batch_size": 10, "distill.common.inner_steps": 2, "distill.common.validate_every": 3,
    "distill.common.optimiser.lr": {"images": 0.1, "texts": 0.1, "similarity": 0.1, "rates": 0.001},
    "evaluate.num_seeds": 2, "evaluate.distilled.epochs": 5, "evaluate.coresets": {"epochs": 2, "scored_intervals": 2},
    "evaluate.full_data": {"epochs": 2, "scored_intervals": 2},
    "experts.num": 1, "experts.epochs": 3, "experts.snapshots_every": 4, "experts.lr": 0.01,
}
"""What makes a profile small enough for a test; nothing else of it is changed."""


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The two encoders by their names in `params.yaml`."""
    folder = tmp_path_factory.mktemp("encoders")
    image, text = folder / "image", folder / "text"
    save_for_hf(seeded(lambda: timm.create_model(IMAGE_MODEL)), image, safe_serialization=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", *shaped.COLOURS, *shaped.SHAPES]
    seeded(lambda: BertModel(BertConfig(vocab_size=len(words), hidden_size=TEXT_WIDTH, num_hidden_layers=1,
                                        num_attention_heads=2, intermediate_size=32))).save_pretrained(text)
    (text / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(text / "vocab.txt"), model_max_length=32).save_pretrained(text)
    return {"encode.image_encoder": f"timm:local-dir:{image}", "encode.text_encoder": f"transformers:{text}"}


def overrides(changes: dict[str, object]) -> list[str]:
    """As Hydra takes them on the command line."""
    return ["~data.expected", "~grid.variants.pairs-500", *(
        f"{key}={json.dumps(value)}" if not isinstance(value, dict) else
        f"{key}={{{', '.join(f'{name}: {json.dumps(entry)}' for name, entry in value.items())}}}"
        for key, value in changes.items())]


PROFILE, CELL = "coco", "evaluate-distilled@repblend-100"


def test_a_set_of_cocos_layout_goes_through_its_profile_to_table_2(encoders: dict[str, str], tmp_path: Path) -> None:
    copy = shaped.coco(tmp_path / "set")
    workspace = Workspace.create(tmp_path / "clone")
    changes = SMALL | encoders | {"data.folder": str(copy)}
    problems = workspace.run("-m", "repro", "data", "check", PROFILE, str(copy), expect=1)
    assert "expected" in problems.splitlines()[0]  # it is smaller than the real one, and nothing else is wrong
    workspace.run_forked("profile", PROFILE, *overrides(changes))
    write_down(workspace)
    workspace.run_forked("run", CELL, "--profile", PROFILE)
    workspace.run_forked("report", "--profile", PROFILE, figures=1)
    folder = workspace.folder / "profiles" / PROFILE
    table = published_table(folder, PROFILE)
    found = read_json(folder / "records/evaluate/repblend-100/record.json")["protocols"]["faithful"]["mean"]
    for recall in ("ir_at_1", "ir_at_5", "ir_at_10", "tr_at_1", "tr_at_5", "tr_at_10"):
        row = table["RepBlend", "100", recall]
        assert float(row["ours"]) == pytest.approx(found[recall], abs=0.01) and float(row["published"]) > 0
    assert table["RepBlend", "500", "ir_at_1"]["status"] == "not run"
    assert list((folder / "paper/figures").glob("*.svg"))


def write_down(workspace: Workspace) -> None:
    """Write the manifest that `repro data check` writes of a whole set."""
    params = read_params(workspace.folder / "profiles" / PROFILE / "params.yaml")
    source = source_of(params.data, workspace.folder)
    report = check(source, workspace.folder / "journal.jsonl")
    assert report.problems == []
    write_manifest(source, report)


def published_table(folder: Path, dataset: str) -> dict[tuple[str, str, str], dict[str, str]]:
    """The rows of the paper's table beside ours, by method, pairs and recall."""
    with (folder / f"paper/tables/published-{dataset}.csv").open(newline="") as lines:
        return {(row["method"], row["pairs"], row["recall"]): row for row in csv.DictReader(lines)}
