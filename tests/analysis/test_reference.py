"""Measures under reference models, against each measure computed by hand for each model."""

import itertools
import statistics

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repblend.analysis.reference import embedded, measure_set
from repblend.encoders.heads import HeadSpec, apply_head, init_head
from repblend.evaluation.protocol import HeadPair
from repblend.matching.step import PerModality, Student

HEADS = HeadPair(HeadSpec(6, 5), HeadSpec(4, 5))
LINEAR = Student(lambda x, flat: x @ flat.view(-1, 3), lambda x, flat: x @ flat.view(-1, 3))
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
