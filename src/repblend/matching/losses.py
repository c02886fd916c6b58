"""The student's losses on a batch of logits and soft targets (`paper/METHOD.md`, section 2).

The matching loss, which compares a trained student with an expert, is in `repblend.matching.gradient`.

Shapes: B pairs; logits Z (..., B, B) with rows images and columns texts; target similarity A (..., B, B), which may
leave [0, 1]. Leading dimensions count batches that do not see each other: each has a loss of its own, (...).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]

EPSILON = 1e-6
"""Keeps logarithms and quotients finite in the published weighted losses."""
POSITIVE_ABOVE = 0.5
"""A pair with a target above this counts as a positive of the weighted binary cross-entropy."""
MATRIX = (-2, -1)
"""The dimensions of a batch's rows and columns."""
KL_SHARPNESS = 10.0
"""Targets are multiplied by this before their softmax in the KL loss."""


def cosine_logits(image_embeddings: Tensor, text_embeddings: Tensor, temperature: float) -> Tensor:
    """Return cosines over the temperature.

    Args:
        image_embeddings: (B, D), of any length.
        text_embeddings: (C, D), of any length.

    Returns:
        (B, C); rows images, columns texts.
    """
    return unit(image_embeddings) @ unit(text_embeddings).mT / temperature


def unit(embeddings: Tensor) -> Tensor:
    """Scale each row of (..., D) to length one; a row of zeros becomes NaN."""
    lengths: Tensor = embeddings.norm(dim=-1, keepdim=True)
    return embeddings / lengths


def kl(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over all elements of T (log T - log softmax Z), T = softmax(10 A); both directions averaged."""

    def one_way(logits: Tensor, target: Tensor) -> Tensor:
        log_target = F.log_softmax(KL_SHARPNESS * target, dim=-1)
        return _mean(log_target.exp() * (log_target - F.log_softmax(logits, dim=-1)))

    return (one_way(logits, target) + one_way(logits.mT, target.mT)) / 2


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of sigmoid(Z); the mean over all elements.

    Raises:
        ValueError: a target leaves [0, 1], where this loss has no meaning (a learned low-rank similarity may).
    """
    if not ((target >= 0) & (target <= 1)).all():
        raise ValueError("loss 'bce' needs targets within [0, 1], but the soft similarity left that range; "
                         "choose loss 'wbce', 'infonce', 'cwcl' or 'mse'")
    return _mean(F.binary_cross_entropy(torch.sigmoid(logits), target, reduction="none"))


def wbce(logits: Tensor, target: Tensor) -> Tensor:
    """Weighted binary cross-entropy, the paper's loss: positives and negatives weigh the same as groups.

    With targets outside [0, 1] it may be negative. The groups' masks carry no gradient; the targets inside do.
    """
    probability = torch.sigmoid(logits)
    element = -target * torch.log(probability + EPSILON) - (1 - target) * torch.log(1 - probability + EPSILON)
    positive = (target > POSITIVE_ABOVE).to(element.dtype)
    negative = 1 - positive
    positives = (element * positive).sum(MATRIX) / (positive.sum(MATRIX) + EPSILON)
    negatives = (element * negative).sum(MATRIX) / (negative.sum(MATRIX) + EPSILON)
    return (positives + negatives) / 2


def infonce(logits: Tensor, target: Tensor) -> Tensor:
    """Soft InfoNCE: cross-entropy with the targets' rows, and with their columns, averaged; rows not normalised."""
    image_to_text = (target * F.log_softmax(logits, dim=-1)).sum(dim=-1).mean(dim=-1)
    text_to_image = (target * F.log_softmax(logits, dim=-2)).sum(dim=-2).mean(dim=-1)
    return -(image_to_text + text_to_image) / 2


def cwcl(logits: Tensor, target: Tensor) -> Tensor:
    """Continuously weighted contrastive loss: as InfoNCE, each row divided by its targets' sum."""

    def one_way(logits: Tensor, target: Tensor) -> Tensor:
        return -((target * F.log_softmax(logits, dim=-1)).sum(dim=-1) / (target.sum(dim=-1) + EPSILON)).mean(dim=-1)

    return (one_way(logits, target) + one_way(logits.mT, target.mT)) / 2


def mse(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of sigmoid(Z) and the targets."""
    return _mean((torch.sigmoid(logits) - target).square())


def _mean(elements: Tensor) -> Tensor:
    return elements.mean(MATRIX)


LOSSES: dict[str, Loss] = {"kl": kl, "bce": bce, "wbce": wbce, "infonce": infonce, "cwcl": cwcl, "mse": mse}
"""Every loss by its name in `params.yaml`."""


LOGIT_TEMPERATURES: dict[str, Callable[[float], float]] = {
    "reciprocal": lambda temperature: temperature, "log": lambda temperature: 1 / math.log(1 / temperature)}
"""What cosines are divided by at a given temperature, by the logit scale's name in `params.yaml`: the temperature
itself, or, as in the released MTT-VL, whose student lacks an exponential, 1 / ln(1 / temperature)."""
