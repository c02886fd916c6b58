"""The student's losses on a batch of logits and soft targets (PAPER.md section 2; parity/README.md section 2).

Shapes: B pairs; logits Z (B, B) with rows images and columns texts; target similarity A (B, B), which may leave [0, 1].
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
    return embeddings / embeddings.norm(dim=-1, keepdim=True)


def kl(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over all elements of T (log T - log softmax Z), T = softmax(10 A); both directions averaged."""

    def one_way(logits: Tensor, target: Tensor) -> Tensor:
        log_target = F.log_softmax(KL_SHARPNESS * target, dim=1)
        return (log_target.exp() * (log_target - F.log_softmax(logits, dim=1))).mean()

    return (one_way(logits, target) + one_way(logits.mT, target.mT)) / 2


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of sigmoid(Z); the mean over all elements.

    Raises:
        ValueError: a target leaves [0, 1], where this loss has no meaning (a learned low-rank similarity may).
    """
    if not ((target >= 0) & (target <= 1)).all():
        raise ValueError("loss 'bce' needs targets within [0, 1], but the soft similarity left that range; "
                         "choose loss 'wbce', 'infonce', 'cwcl' or 'mse'")
    return F.binary_cross_entropy(torch.sigmoid(logits), target)


def wbce(logits: Tensor, target: Tensor) -> Tensor:
    """Weighted binary cross-entropy, the paper's loss: positives and negatives weigh the same as groups.

    With targets outside [0, 1] it may be negative. The groups' masks carry no gradient; the targets inside do.
    """
    probability = torch.sigmoid(logits)
    element = -target * torch.log(probability + EPSILON) - (1 - target) * torch.log(1 - probability + EPSILON)
    positive = (target > POSITIVE_ABOVE).to(element.dtype)
    negative = 1 - positive
    positives = (element * positive).sum() / (positive.sum() + EPSILON)
    negatives = (element * negative).sum() / (negative.sum() + EPSILON)
    return (positives + negatives) / 2


def infonce(logits: Tensor, target: Tensor) -> Tensor:
    """Soft InfoNCE: cross-entropy with the targets' rows, and with their columns, averaged; rows not normalised."""
    image_to_text = (target * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
    text_to_image = (target * F.log_softmax(logits, dim=0)).sum(dim=0).mean()
    return -(image_to_text + text_to_image) / 2


def cwcl(logits: Tensor, target: Tensor) -> Tensor:
    """Continuously weighted contrastive loss: as InfoNCE, each row divided by its targets' sum."""

    def one_way(logits: Tensor, target: Tensor) -> Tensor:
        return -((target * F.log_softmax(logits, dim=1)).sum(dim=1) / (target.sum(dim=1) + EPSILON)).mean()

    return (one_way(logits, target) + one_way(logits.mT, target.mT)) / 2


def mse(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of sigmoid(Z) and the targets."""
    return (torch.sigmoid(logits) - target).square().mean()


LOSSES: dict[str, Loss] = {"kl": kl, "bce": bce, "wbce": wbce, "infonce": infonce, "cwcl": cwcl, "mse": mse}
"""Every loss by its name in `params.yaml`."""


def _reciprocal(temperature: float) -> float:
    return temperature


def _log(temperature: float) -> float:
    return 1 / math.log(1 / temperature)


LOGIT_TEMPERATURES: dict[str, Callable[[float], float]] = {"reciprocal": _reciprocal, "log": _log}
"""What cosines are divided by at a given temperature, by the logit scale's name in `params.yaml`: the temperature
itself, or, as in the released MTT-VL, whose student lacks an exponential, 1 / ln(1 / temperature)."""
