"""Collapse measures of a set in the embeddings of reference models (figure 2, PAPER.md section 9).

A reference model is a pair of heads trained on all real pairs: the last snapshot of an expert. One model's measures
depend on where its training began, so every one is measured and their spread stands beside the mean.

Shapes: N pairs of the set, M real pairs, D_img and D_txt feature widths, P parameters of a head.
"""

import statistics
from collections.abc import Sequence

import torch

from repblend.analysis.collapse import concentration_ratio, effective_rank, intra_modal_similarity, modality_gap
from repblend.matching.step import PerModality, Student
from repblend.store import JSON


def measure_set(pairs: PerModality, real: PerModality, references: Sequence[PerModality], student: Student) -> JSON:
    """Return the collapse measures of a set under each reference model, with their mean and spread.

    Args:
        pairs: the set's features, (N, D_img) and (N, D_txt), N at least 2.
        real: features of real random pairs, (M, D_img) and (M, D_txt), M at least 2. Their mean cosine under the same
            model is the threshold of the concentration ratio.
        references: flat heads, (P,) each, at least one model.
        student: what flat heads mean.

    Returns:
        Measure -> `values` (one per model, in their order), `mean`, and `std`, the sample standard deviation (n - 1),
        which is None for one model. Modalities have measures of their own, their names ending in `_img` and `_txt`.
    """
    models = [collapse_measures(embedded(pairs, heads, student), embedded(real, heads, student))
              for heads in references]
    return {name: _summary([measures[name] for measures in models]) for name in models[0]}


def embedded(features: PerModality, heads: PerModality, student: Student) -> PerModality:
    """Return the embeddings of features under one model, (N, D) each, in float64."""
    with torch.no_grad():
        return PerModality(student.image(features.img, heads.img).double(),
                           student.text(features.txt, heads.txt).double())


def collapse_measures(pairs: PerModality, real: PerModality) -> dict[str, float]:
    """Return the measures of embeddings (N, D) of a set, beside those (M, D) of real random pairs; as `measure_set`."""
    measures = {"modality_gap": modality_gap(*pairs)}
    for side in PerModality._fields:
        embeddings, threshold = getattr(pairs, side), intra_modal_similarity(getattr(real, side))
        measures[f"intra_modal_similarity_{side}"] = intra_modal_similarity(embeddings)
        measures[f"concentration_ratio_{side}"] = concentration_ratio(embeddings, threshold)
        measures[f"effective_rank_{side}"] = effective_rank(embeddings)
    return measures


def _summary(values: list[float]) -> JSON:
    return {"values": values, "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else None}
