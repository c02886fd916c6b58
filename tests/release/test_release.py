"""Release of a set: what others load is what students are trained on, and the numbers come out the same."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from repblend.data.source import KNOWN, attribution
from repblend.encoders.registry import load_image_encoder
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params.reading import read_yaml
from repblend.release.__main__ import main
from repblend.release.folder import Release, card
from repblend.runtime.context import Paths
from repblend.store import folder_sha256, read_json, write_json
from tests.release.conftest import CELL, NUM_PAIRS


def test_the_hubs_library_loads_the_pairs_with_every_float_as_it_was(workspace: Path, released: Path,
                                                                     tmp_path: Path) -> None:
    loaded = datasets.load_dataset(str(released), split="train", cache_dir=str(tmp_path))
    stored = SyntheticSet.read(Paths(workspace).set(CELL))
    assert loaded.num_rows == NUM_PAIRS
    assert torch.equal(torch.tensor(loaded["text_embedding"][:]), stored.texts)
    assert torch.equal(torch.tensor(loaded["similarity"][:]), stored.similarity.matrix())
    assert all(isinstance(image, Image.Image) and image.size == (32, 32) for image in loaded["image"])


def test_images_are_shown_within_half_a_level_where_a_screen_can_show_them(workspace: Path, released: Path) -> None:
    stored, encoder = SyntheticSet.read(Paths(workspace).set(CELL)), load_image_encoder("efficientnet_lite0", 32)
    exact = (stored.images[2].permute(1, 2, 0) * encoder.std + encoder.mean).numpy() * 255
    shown = np.asarray(Image.open(released / "images" / "00002.png")).astype(float)
    assert np.abs(shown - exact.clip(0, 255)).max() < 0.5 + 1e-3


def test_the_nearest_captions_are_those_of_the_pair_that_a_text_was_made_from(workspace: Path, released: Path) -> None:
    rows = [json.loads(line) for line in (released / "images" / "metadata.jsonl").read_text().splitlines()]
    train = read_json(Paths(workspace).data / "openmoji_train.json")
    captions = [row["caption"] for row in train][:NUM_PAIRS]
    assert [row["nearest_captions"][0] for row in rows] == captions


def test_the_card_names_licence_source_and_what_was_measured(workspace: Path, released: Path) -> None:
    text = (released / "README.md").read_text(encoding="utf-8")
    mean = read_json(Paths(workspace).record("evaluate", CELL))["protocols"]["held-out"]["mean"]["mean_recall"]
    assert text.startswith("---\nlicense: cc-by-sa-4.0\n") and "All emojis designed by OpenMoji" in text
    assert f"| {mean:.1f} ± " in text and "$" not in text


def test_without_features_the_captions_are_encoded_to_the_same_bytes(workspace: Path, released: Path,
                                                                     tmp_path: Path) -> None:
    own = Path(shutil.copytree(workspace, tmp_path / "workspace"))
    shutil.rmtree(own / "features")
    threads = torch.get_num_threads()
    Release.of(CELL, Paths(own)).write(tmp_path / "set")
    torch.set_num_threads(threads)
    assert folder_sha256(tmp_path / "set") == folder_sha256(released)


def test_a_set_that_was_not_evaluated_says_so(workspace: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(workspace, tmp_path / "workspace"))
    Paths(own).record("evaluate", CELL).unlink()
    Release.of(CELL, Paths(own)).write(tmp_path / "set")
    assert "Not evaluated" in (tmp_path / "set" / "README.md").read_text(encoding="utf-8")


def test_a_folder_that_is_something_else_is_left_alone(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is no released set"):
        Release.of(CELL, Paths(workspace)).write(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_set_that_was_not_made_is_named(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(workspace)
    assert main(["folder", "repblend-7", str(tmp_path / "set")]) == 1
    assert "repblend-7.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_what_is_no_result_of_the_parameters_is_not_released(workspace: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(workspace, tmp_path / "workspace"))

    def refused(said: str) -> None:
        with pytest.raises(ValueError, match=said):
            Release.of(CELL, Paths(own))

    kept = (own / "params.yaml").read_text()
    (own / "params.yaml").write_text(kept.replace("image_size: 32", "image_size: 48"))
    refused(r"records/evaluate/repblend-50/record\.json: made with other parameters: data")
    (own / "params.yaml").write_text(kept)
    record = Paths(own).record("evaluate", CELL)
    content = read_json(record)
    content["protocols"]["held-out"]["mean"]["mean_recall"] = 99.0
    write_json(record, content)
    refused(r"records/evaluate/repblend-50/record\.json: expected MD5 \w{32} \(dvc\.lock\), found")
    (own / "dvc.lock").write_text("stages: {}\n")
    refused(r"sets/repblend-50\.safetensors: dvc\.lock does not know it")
    (own / "dvc.lock").unlink()
    refused(r"dvc\.lock: no such file")


KILLED = """
import os, signal, sys
from pathlib import Path
from repblend import store
setattr(Path, sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
with store.atomic_path(Path(sys.argv[1])) as aside:
    aside.mkdir()
    (aside / "release.json").write_text("{}")
"""


@pytest.mark.parametrize("moment", ["rename", "replace"])
def test_an_export_that_was_killed_while_it_replaced_another_is_made_the_next_time(
        workspace: Path, released: Path, tmp_path: Path, moment: str) -> None:
    folder = Path(shutil.copytree(released, tmp_path / "set"))
    done = subprocess.run([sys.executable, "-c", KILLED, folder, moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir()} != {"set"}
    Release.of(CELL, Paths(workspace)).write(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert folder_sha256(folder) == folder_sha256(released)


# The data card: its licence is that of the source data.

FACTS = {"title": "RepBlend", "num_pairs": 99, "encoders": {"image": "nfnet_l0", "text": "bert-base-uncased"},
         "image_shape": [3, 224, 224], "stored_bytes": 5, "command": "none", "evaluation": None}


def header(tmp_path: Path, dataset: str) -> dict:
    """What the hub reads at the top of the card."""
    text = card(FACTS | {"dataset": dataset}, attribution(dataset, tmp_path))
    (tmp_path / "header.yaml").write_text(text.split("---\n")[1])
    return read_yaml(tmp_path / "header.yaml")


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_published_sets_have_terms_of_their_own(known, tmp_path: Path) -> None:
    found = header(tmp_path, known.name)
    assert (found["license"], found["license_name"], found["license_link"]) == (
        "other", known.license_name, known.license_link)
    assert known.terms in card(FACTS | {"dataset": known.name}, attribution(known.name, tmp_path))


def test_nothing_is_claimed_of_a_set_whose_owner_says_nothing(tmp_path: Path) -> None:
    assert header(tmp_path, "mine")["license"] == "unknown"
    assert "Nobody has stated whose data `mine` is" in attribution("mine", tmp_path)
    (tmp_path / "ATTRIBUTION.md").write_text("# Attribution\n\nDrawn by me, CC0.\n")
    assert "Drawn by me, CC0." in card(FACTS | {"dataset": "mine"}, attribution("mine", tmp_path))
    assert header(tmp_path, "openmoji")["license"] == "cc-by-sa-4.0"


def test_names_and_an_attribution_are_no_markup_in_the_card() -> None:
    hostile = "x`<script>alert(1)</script>[a](http://b)\n# {{ 7 * 7 }}\u202e"
    facts = FACTS | {"dataset": hostile, "title": hostile, "command": hostile,
                     "encoders": {"image": hostile, "text": hostile}}
    text = card(facts, f"# Attribution\n\nBy {hostile}, <https://example.org/> <b onclick=x>")
    assert "\u202e" not in text and "49" not in text and text.startswith("---\nlicense: unknown\n")
    outside_of_code = re.sub(r"`[^`\n]*`|\\\\.|\\.", "", text)
    assert "<script" not in outside_of_code and "[a](" not in outside_of_code.partition("## Source and licence")[0]
    assert "<https://example.org/> &lt;b onclick=x>" in text
    assert len(re.findall("^# ", text.partition("## Source")[0], re.MULTILINE)) == 1
