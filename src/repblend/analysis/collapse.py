"""Measures of modality collapse of a set's embeddings. The paper's formulas are unknown: this project's definitions.

Shapes: N pairs, D embedding width.

Of the paper's concentration ratio (CR) only values are known: 0.42 at the start and 0.95 at the end, while the mean
cosine moves by 0.01. A mean cannot do that, a share of pairs above a fixed threshold can: in many dimensions cosines
lie so close together that a small shift carries most of them over it. With the mean cosine of the real pairs as the
threshold such a share starts near one half.
"""

import torch
from torch import Tensor

from repblend.matching.losses import unit

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
