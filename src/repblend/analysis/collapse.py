"""Measures of modality collapse of a set's embeddings. The paper's formulas are unknown: this project's definitions.

Shapes: N pairs, D embedding width.
"""

from torch import Tensor

DEFINITIONS = {
    "intra_modal_similarity": "mean cosine of all pairs of different embeddings of one modality",
    "modality_gap": "Euclidean distance between the mean unit image embedding and the mean unit text embedding",
}


def unit(embeddings: Tensor) -> Tensor:
    """Scale each row of (N, D) to length one."""
    return embeddings / embeddings.norm(dim=-1, keepdim=True)


def intra_modal_similarity(embeddings: Tensor) -> float:
    """Return the mean cosine of all N (N - 1) ordered pairs of different rows of (N, D), N at least 2.

    With s the sum of the unit rows, |s|^2 counts every ordered pair and each row with itself once, hence
    (|s|^2 - N) / (N (N - 1)).
    """
    count = len(embeddings)
    return ((unit(embeddings).sum(dim=0).square().sum() - count) / (count * (count - 1))).item()


def modality_gap(image_embeddings: Tensor, text_embeddings: Tensor) -> float:
    """Return the distance of the two modalities' centroids on (in) the unit sphere, 0 to 2; inputs (N, D) each."""
    return (unit(image_embeddings).mean(dim=0) - unit(text_embeddings).mean(dim=0)).norm().item()
