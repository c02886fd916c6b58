"""Collapse measures against closed forms and a brute-force twin; specimens."""

import itertools
import math

import pytest
import torch

from repblend.analysis.collapse import intra_modal_similarity, modality_gap
from repblend.analysis.specimens import evenly_spaced, nearest_captions


def test_similarity_of_orthogonal_equal_and_opposite_embeddings() -> None:
    assert intra_modal_similarity(torch.eye(5, dtype=torch.float64)) == pytest.approx(0, abs=1e-15)
    assert intra_modal_similarity(torch.ones(4, 3, dtype=torch.float64)) == pytest.approx(1)
    assert intra_modal_similarity(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(-1)


def test_similarity_equals_the_mean_over_all_pairs() -> None:
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = [torch.nn.functional.cosine_similarity(a, b, dim=0).item() for a, b in itertools.combinations(rows, 2)]
    assert intra_modal_similarity(rows) == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)


def test_similarity_ignores_the_lengths_of_embeddings() -> None:
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert intra_modal_similarity(rows * torch.arange(1, 7)[:, None]) == pytest.approx(intra_modal_similarity(rows))


def test_gap_of_known_configurations() -> None:
    east, north = torch.tensor([[3.0, 0.0]]).repeat(4, 1), torch.tensor([[0.0, 1.0]]).repeat(7, 1)
    assert modality_gap(east, east) == 0
    assert modality_gap(east, north) == pytest.approx(math.sqrt(2))
    assert modality_gap(east, -east) == pytest.approx(2)


def test_specimens_are_spread_evenly() -> None:
    assert evenly_spaced(99, 4) == [0, 24, 49, 74]
    assert evenly_spaced(3, 3) == [0, 1, 2]


def test_nearest_captions_are_different_and_in_order() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.01], [1.0, 1.0], [-1.0, 0.0]])
    captions = ["cat", "dog", "cat", "both", "neither"]
    (nearest,) = nearest_captions(torch.tensor([[2.0, 0.0]]), features, captions)
    assert [row["caption"] for row in nearest] == ["cat", "both", "dog"]
    assert [row["cosine"] for row in nearest] == [1.0, pytest.approx(0.7071, abs=1e-4), 0.0]
