"""Collapse measures against closed forms and a brute-force twin; specimens."""

import itertools
import math
import statistics

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repblend.analysis.collapse import (
    concentration_ratio,
    effective_rank,
    embedded,
    evenly_spaced,
    intra_modal_similarity,
    measure_set,
    modality_gap,
    nearest_captions,
)
from repblend.encoders.heads import HeadSpec, apply_head, init_head
from repblend.evaluation.towers import HeadPair
from repblend.matching.student import PerModality, TwoTower


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


def test_concentration_of_orthogonal_equal_and_clustered_embeddings() -> None:
    basis = torch.eye(5, dtype=torch.float64)
    assert concentration_ratio(basis, -0.1) == 1 and concentration_ratio(basis, 0.1) == 0
    assert concentration_ratio(torch.ones(4, 3, dtype=torch.float64), 0.99) == 1
    clusters = basis[[0, 0, 0, 1, 1]]
    assert concentration_ratio(clusters, 0.5) == pytest.approx((3 * 2 + 2 * 1) / (5 * 4))


def test_a_pair_at_the_threshold_is_not_above_it() -> None:
    basis = torch.eye(3, dtype=torch.float64)
    assert concentration_ratio(basis, 0.0) == 0 and concentration_ratio(basis[[0, 0]], 1.0) == 0


@pytest.mark.parametrize("threshold", [-0.4, 0.0, 0.3])
def test_concentration_equals_the_count_over_all_ordered_pairs(threshold: float) -> None:
    rows = torch.randn(11, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    cosines = [sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
               for a, b in itertools.permutations(rows.tolist(), 2)]
    expected = sum(cosine > threshold for cosine in cosines) / len(cosines)
    assert 0 < expected < 1 and concentration_ratio(rows, threshold) == expected


def test_a_shift_of_a_hundredth_carries_most_pairs_over_the_threshold() -> None:
    noise = torch.randn(60, 20_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    before, after = noise + 1.00, noise + 1.02  # all rows share one direction; then a little more of it
    threshold = intra_modal_similarity(before)
    assert intra_modal_similarity(after) - threshold == pytest.approx(0.01, abs=1e-3)
    assert 0.4 < concentration_ratio(before, threshold) < 0.6 and concentration_ratio(after, threshold) > 0.9


def test_effective_rank_of_known_configurations() -> None:
    basis = torch.eye(7, dtype=torch.float64)
    assert effective_rank(basis) == pytest.approx(7)
    assert effective_rank(basis[:3] * torch.tensor([[1.0], [20.0], [0.3]])) == pytest.approx(3)
    assert effective_rank(torch.ones(6, 4, dtype=torch.float64)) == pytest.approx(1)
    assert effective_rank(basis[[0, 0, 0, 0, 1, 1, 1, 1]]) == pytest.approx(2)
    assert effective_rank(torch.cat([basis, -basis])) == pytest.approx(7)


def test_effective_rank_of_two_unequal_clusters() -> None:
    basis = torch.eye(4, dtype=torch.float64)
    shares = [3 / 4, 1 / 4]  # nine rows and one: singular values 3 and 1
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert effective_rank(basis[[0] * 9 + [1]]) == pytest.approx(expected, rel=1e-12)


def test_effective_rank_equals_the_entropy_of_the_gram_matrix_roots() -> None:
    rows = torch.randn(5, 9, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    gram = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1)
    roots = torch.linalg.eigvalsh(gram).sqrt().tolist()
    expected = math.exp(-sum(r / sum(roots) * math.log(r / sum(roots)) for r in roots))
    assert effective_rank(rows) == pytest.approx(expected, rel=1e-10)


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


# Measures under reference models.


HEADS = HeadPair(HeadSpec(6, 5), HeadSpec(4, 5))
LINEAR = TwoTower(lambda x, flat: x @ flat.view(-1, 3), lambda x, flat: x @ flat.view(-1, 3))
MEASURES = {f"{measure}_{side}" for measure in ("intra_modal_similarity", "concentration_ratio", "effective_rank")
            for side in ("img", "txt")} | {"modality_gap"}


def some_pairs(seed: int, count: int) -> PerModality:
    draws = torch.Generator().manual_seed(seed)
    return PerModality(torch.randn(count, 6, generator=draws), torch.randn(count, 4, generator=draws))


def some_references(count: int) -> list[PerModality]:
    draws = torch.Generator().manual_seed(7)
    return [PerModality(init_head(HEADS.img, draws), init_head(HEADS.txt, draws)) for _ in range(count)]


def cosines(rows: Tensor) -> list[float]:
    return [F.cosine_similarity(a, b, dim=0).item() for a, b in itertools.permutations(rows, 2)]


def test_every_measure_is_the_one_computed_for_that_model() -> None:
    pairs, real, references = some_pairs(0, 8), some_pairs(1, 9), some_references(3)
    found = measure_set(pairs, real, references, HEADS.student)
    assert found.keys() == MEASURES
    for side, spec in zip(PerModality._fields, (HEADS.img, HEADS.txt), strict=True):
        for number, heads in enumerate(references):
            ours, theirs = (apply_head(getattr(rows, side), getattr(heads, side), spec).double()
                            for rows in (pairs, real))
            threshold = statistics.fmean(cosines(theirs))
            expected = [cosine > threshold for cosine in cosines(ours)]
            assert found[f"concentration_ratio_{side}"]["values"][number] == sum(expected) / len(expected)
            assert found[f"intra_modal_similarity_{side}"]["values"][number] == pytest.approx(
                statistics.fmean(cosines(ours)), rel=1e-12)


def test_mean_and_sample_standard_deviation_are_over_the_models() -> None:
    found = measure_set(some_pairs(0, 8), some_pairs(1, 9), some_references(4), HEADS.student)
    for measure in found.values():
        mean = sum(measure["values"]) / 4
        spread = (sum((value - mean) ** 2 for value in measure["values"]) / 3) ** 0.5
        assert len(set(measure["values"])) > 1
        assert (measure["mean"], measure["std"]) == (pytest.approx(mean), pytest.approx(spread))


def test_one_model_has_no_standard_deviation() -> None:
    found = measure_set(some_pairs(0, 8), some_pairs(1, 9), some_references(1), HEADS.student)
    assert all(measure["std"] is None and measure["mean"] == measure["values"][0] for measure in found.values())


def test_a_set_of_known_embeddings() -> None:
    """Images on two orthogonal axes, texts all on the third; real images are orthogonal, real texts too."""
    axes = torch.eye(3)
    pairs, real = PerModality(axes[[0, 0, 1, 1]], axes[[2, 2, 2, 2]]), PerModality(axes, axes)
    identity = PerModality(axes.flatten(), axes.flatten())
    found = {name: measure["mean"] for name, measure in measure_set(pairs, real, [identity], LINEAR).items()}
    assert found == pytest.approx({
        "intra_modal_similarity_img": 1 / 3, "intra_modal_similarity_txt": 1, "concentration_ratio_img": 1 / 3,
        "concentration_ratio_txt": 1, "effective_rank_img": 2, "effective_rank_txt": 1, "modality_gap": 1.5 ** 0.5})


def test_embeddings_are_double_and_without_a_graph() -> None:
    found = embedded(some_pairs(0, 8), some_references(1)[0], HEADS.student)
    assert all(side.dtype == torch.float64 and not side.requires_grad and side.shape == (8, 5) for side in found)
