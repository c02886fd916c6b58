"""Measures of modality collapse of a set's embeddings (Figure 2; `paper/METHOD.md`, section 11).

The paper's formulas are unknown: these are this project's definitions, in `DEFINITIONS`. Of the paper's concentration
ratio (CR) only values are known: 0.42 at the start and 0.95 at the end, while the mean cosine moves by 0.01. A mean
cannot do that, a share of pairs above a fixed threshold can: in many dimensions cosines lie so close together that a
small shift carries most of them over it. With the mean cosine of the real pairs as the threshold such a share starts
near one half.

Below the measures: what the report shows of single pairs of a distilled set.

Shapes: N pairs of the set, M real pairs or captions, D embedding width, D_img and D_txt feature widths, P parameters.
"""

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from repblend.matching.losses import unit
from repblend.matching.student import PerModality, TwoTower
from repblend.store import JSON

DEFINITIONS = {
    "intra_modal_similarity": "mean cosine of all pairs of different embeddings of one modality",
    "concentration_ratio": "share of the pairs of different embeddings of one modality whose cosine is above the mean "
                           "cosine of real random pairs",
    "effective_rank": "exponential of the entropy of the normalised singular values of the unit embeddings of one "
                      "modality, not centred (Roy and Vetterli)",
    "modality_gap": "Euclidean distance between the mean unit image embedding and the mean unit text embedding",
}


def intra_modal_similarity(embeddings: Tensor) -> float:
    """Return the mean cosine of all N (N - 1) ordered pairs of different rows of (N, D), N at least 2.

    With s the sum of the unit rows, |s|^2 counts every ordered pair and each row with itself once, hence
    (|s|^2 - N) / (N (N - 1)).
    """
    count = len(embeddings)
    return ((unit(embeddings).sum(dim=0).square().sum() - count) / (count * (count - 1))).item()


def concentration_ratio(embeddings: Tensor, threshold: float) -> float:
    """Return the share, 0 to 1, of the N (N - 1) ordered pairs of different rows with a cosine above a threshold.

    Args:
        embeddings: (N, D), N at least 2.
        threshold: a cosine; a pair that equals it is not above it.
    """
    directions, count = unit(embeddings), len(embeddings)
    above = (directions @ directions.mT > threshold).fill_diagonal_(False)  # (N, N)
    return above.sum().item() / (count * (count - 1))


def effective_rank(embeddings: Tensor) -> float:
    """Return how many directions the rows of (N, D) effectively span, 1 to min(N, D).

    exp(-sum_k p_k log p_k), p_k the singular values of the unit rows divided by their sum. The rows are not centred:
    embeddings that all point the same way span one direction.
    """
    singular_values = torch.linalg.svdvals(unit(embeddings))
    return torch.special.entr(singular_values / singular_values.sum()).sum().exp().item()


def modality_gap(image_embeddings: Tensor, text_embeddings: Tensor) -> float:
    """Return the distance of the two modalities' centroids on (in) the unit sphere, 0 to 2; inputs (N, D) each."""
    return (unit(image_embeddings).mean(dim=0) - unit(text_embeddings).mean(dim=0)).norm().item()


def measure_set(pairs: PerModality, real: PerModality, references: Sequence[PerModality], student: TwoTower) -> JSON:
    """Return the collapse measures of a set under each reference model, with their mean and spread.

    A reference model is a pair of heads trained on all real pairs: the last snapshot of an expert. One model's measures
    depend on where its training began, so every one is measured and their spread stands beside the mean.

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


def embedded(features: PerModality, heads: PerModality, student: TwoTower) -> PerModality:
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


# Specimens of a distilled set for the report: what a few pairs started as, what they became, which captions are near.

NUM_NEAREST = 3
CAPTIONS_AT_ONCE = 2**16
SPECIMEN_DEFINITIONS = {
    "nearest_captions": "captions of the training set by the cosine of their text embedding with the distilled one",
}


def evenly_spaced(num_pairs: int, num_specimens: int) -> list[int]:
    """Return at most `num_specimens` indices spread over 0 .. num_pairs - 1: chosen by position, not by looks."""
    return [position * num_pairs // num_specimens for position in range(num_specimens)]


def nearest_captions(texts: Tensor, caption_features: Tensor, captions: Sequence[str]) -> list[list[JSON]]:
    """Return, for each distilled text (N, D), the nearest different captions of the training set and their cosines.

    Args:
        caption_features: (M, D) float32 or float16 embeddings of the captions; looked at a part at a time.
        captions: M texts.
    """
    directions = unit(texts)
    cosines = torch.cat([directions @ unit(part.float()).mT for part in caption_features.split(CAPTIONS_AT_ONCE)],
                        dim=1)  # (N, M)
    return [_first_different(row, captions) for row in cosines]


def _first_different(cosines: Tensor, captions: Sequence[str]) -> list[JSON]:
    """The best-scoring captions of one row; a caption that many images share is named once."""
    nearest: dict[str, float] = {}
    for index in torch.argsort(cosines, descending=True, stable=True).tolist():
        nearest.setdefault(captions[index], round(cosines[index].item(), 4))
        if len(nearest) == NUM_NEAREST:
            break
    return [{"caption": caption, "cosine": cosine} for caption, cosine in nearest.items()]
