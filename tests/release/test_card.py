"""The data card's licence is that of the source data."""

from pathlib import Path

import pytest

from repblend.data.known import KNOWN, attribution
from repblend.params import read_yaml
from repblend.release.card import card

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
