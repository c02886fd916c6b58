"""The student's losses on a batch of logits and soft targets (`paper/METHOD.md`, section 2).

The matching loss, which compares a trained student with an expert, is in `repblend.matching.gradient`.

Shapes: B pairs; logits Z (..., B, B) with rows images and columns texts; target similarity A (..., B, B), or (B, B) for
all batches, which may leave [0, 1]. Leading dimensions count batches that do not see each other: each has a loss of its
own, (...).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

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
    return _mean(F.binary_cross_entropy(torch.sigmoid(logits), target.expand_as(logits), reduction="none"))


def wbce(logits: Tensor, target: Tensor) -> Tensor:
    """Weighted binary cross-entropy, the paper's loss: positives and negatives weigh the same as groups.

    With targets outside [0, 1] it may be negative. The groups' masks carry no gradient; the targets inside do.
    """
    return _weighted_bce(_Probabilities.of(logits), *_weighted(target))


class _Probabilities(NamedTuple):
    """p = sigmoid(Z) and 1 - p, and both as divisors and in logarithms."""

    of_pair: Tensor
    of_none: Tensor
    safe_pair: Tensor
    safe_none: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> "_Probabilities":
        probability = torch.sigmoid(logits)
        rest = 1 - probability
        return cls(probability, rest, probability + EPSILON, rest + EPSILON)


def _weighted_bce(found: _Probabilities, right: Tensor, wrong: Tensor) -> Tensor:
    return -(right * torch.log(found.safe_pair) + wrong * torch.log(found.safe_none)).sum(MATRIX)


def _weighted(target: Tensor) -> tuple[Tensor, Tensor]:
    """What both logarithms of `wbce` are multiplied by: each target's share of its group, times A and times 1 - A."""
    positive = (target > POSITIVE_ABOVE).to(target.dtype)
    negative = 1 - positive
    weight = (positive / (positive.sum(MATRIX, keepdim=True) + EPSILON)
              + negative / (negative.sum(MATRIX, keepdim=True) + EPSILON)) / 2
    return weight * target, weight * (1 - target)


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


# Gradients in the logits, written out where it pays: a quarter of autograd's time on matrices as small as these, and
# differentiable once more without a graph of a backward pass.


class AtTargets:
    """A loss at given targets, and its gradient in the logits, by autograd.

    Many batches of logits may share the targets: what follows from these alone is computed once.
    """

    def __init__(self, loss: Loss, target: Tensor) -> None:
        self._loss, self._target = loss, target

    def slope(self, logits: Tensor) -> Tensor:
        """Return the gradient in the logits, (..., B, B), each batch's own.

        It is a function of logits and targets that can be differentiated once more, as far as they require a gradient.
        """
        again = torch.is_grad_enabled() and (logits.requires_grad or self._target.requires_grad)
        with torch.enable_grad():
            leaf = logits if logits.requires_grad else logits.detach().requires_grad_()
            return torch.autograd.grad(self._loss(leaf, self._target).sum(), leaf, create_graph=again)[0]

    def value_and_slope(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, (...), and the gradient; the same bits as apart."""
        return self._loss(logits, self._target), self.slope(logits)


class _WeightedBceAtTargets(AtTargets):
    """`wbce`, whose value and gradient share the probabilities."""

    def __init__(self, loss: Loss, target: Tensor) -> None:
        super().__init__(loss, target)
        self._weights = _weighted(target)

    def slope(self, logits: Tensor) -> Tensor:
        return _weighted_bce_slope(_Probabilities.of(logits), *self._weights)

    def value_and_slope(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        found = _Probabilities.of(logits)
        return _weighted_bce(found, *self._weights), _weighted_bce_slope(found, *self._weights)


def _weighted_bce_slope(found: _Probabilities, right: Tensor, wrong: Tensor) -> Tensor:
    return found.of_pair * found.of_none * (wrong / found.safe_none - right / found.safe_pair)


class _InfoNceAtTargets(AtTargets):
    """`infonce`: each softmax times its targets' sum, less the targets."""

    def __init__(self, loss: Loss, target: Tensor) -> None:
        super().__init__(loss, target)
        self._rows, self._columns = target.sum(dim=-1, keepdim=True), target.sum(dim=-2, keepdim=True)
        self._twice = 2 * target

    def slope(self, logits: Tensor) -> Tensor:
        surplus = (self._rows * torch.softmax(logits, dim=-1) + self._columns * torch.softmax(logits, dim=-2)
                   - self._twice)
        return surplus / (2 * logits.shape[-1])


_WRITTEN_OUT: dict[Loss, type[AtTargets]] = {wbce: _WeightedBceAtTargets, infonce: _InfoNceAtTargets}


def at_targets(loss: Loss, target: Tensor) -> AtTargets:
    """Return a loss of `LOSSES` at targets (..., B, B), with its gradient as it is computed fastest."""
    return _WRITTEN_OUT.get(loss, AtTargets)(loss, target)


def in_units(units: Tensor, logits: Tensor, slope: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Carry a gradient in the logits back to the unit embeddings that they are products of.

    Args:
        units: (2 S, B, D), images' before texts'.
        logits: (S, B, B).
        slope: likewise, the gradient in them.

    Returns:
        The gradient in the units, (2 S, B, D), and its product with each, (2 S, B, 1), which would cost D / B times as
        much if it were taken from them.
    """
    found = torch.empty_like(units)
    (images, texts), (in_images, in_texts) = units.chunk(2), found.chunk(2)
    cosine_slope = slope / temperature
    torch.bmm(cosine_slope, texts, out=in_images)
    torch.bmm(cosine_slope.mT, images, out=in_texts)
    products = slope * logits
    return found, torch.cat([products.sum(-1), products.sum(-2)])[..., None]


LOGIT_TEMPERATURES: dict[str, Callable[[float], float]] = {
    "reciprocal": lambda temperature: temperature, "log": lambda temperature: 1 / math.log(1 / temperature)}
"""What cosines are divided by at a given temperature, by the logit scale's name in `params.yaml`: the temperature
itself, or, as in the released MTT-VL, whose student lacks an exponential, 1 / ln(1 / temperature)."""
