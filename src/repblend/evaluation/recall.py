"""Recall at 1, 5 and 10 in both directions of image-text retrieval, and what chance alone would reach.

- IR@K: share of the *captions* (queries) whose own image is among the first K images.
- TR@K: share of the *images* (queries) with any of their own captions among the first K captions.
- mean recall: the plain mean of the six.

All in percent. The rank of a query's answer is the number of wrong candidates that score at least as high, and a
query counts when that rank is below K.

Ties, by this project's definition, are lost: a wrong candidate with the same score is ranked ahead. A model that
gives every pair the same score therefore gets the worst result, not the best. The captions of one image never
compete with each other. The published code leaves the order among ties to a sort; without ties both agree.

Shapes: N images, M captions.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TOP_K = (1, 5, 10)
RECALLS = tuple(f"{direction}_at_{k}" for direction in ("ir", "tr") for k in TOP_K)
MEAN_RECALL = "mean_recall"
REJECTED = -100.0
"""Score of a candidate that was not kept, as released; cosines, and cosines over 0.07, lie above."""


def retrieval_recalls(scores_NM: Tensor, text_to_image_M: Tensor, text_scores_MN: Tensor | None = None
                      ) -> dict[str, float]:
    """Return the six recalls and their mean, in percent.

    Args:
        scores_NM: (N, M) any float type, higher is better: images (rows) against captions. Ranks captions for TR.
        text_to_image_M: (M,) int64, the image that each caption belongs to; every image has at least one caption.
        text_scores_MN: (M, N) the scores that rank images for IR. Without it, the transpose of the first ones.

    Returns:
        `ir_at_1`, `ir_at_5`, `ir_at_10`, `tr_at_1`, `tr_at_5`, `tr_at_10` and `mean_recall`.

    Raises:
        ValueError: a score is NaN or infinite, the shapes disagree, or an image has no caption.
    """
    text_scores_MN = scores_NM.T if text_scores_MN is None else text_scores_MN
    _check(scores_NM, text_scores_MN, text_to_image_M)
    return recalls_of_ranks(image_ranks(text_scores_MN, text_to_image_M), text_ranks(scores_NM, text_to_image_M))


def recalls_of_ranks(image_ranks_M: Tensor, text_ranks_N: Tensor) -> dict[str, float]:
    """Return the six recalls and their mean, in percent, from what `image_ranks` and `text_ranks` give."""
    ranks = {"ir": image_ranks_M, "tr": text_ranks_N}
    recalls = {f"{direction}_at_{k}": _percent_below(ranks[direction], k) for direction in ranks for k in TOP_K}
    return with_mean(recalls)


def with_mean(recalls: dict[str, float]) -> dict[str, float]:
    """Return the six recalls with `mean_recall` added."""
    return recalls | {MEAN_RECALL: sum(recalls[key] for key in RECALLS) / len(RECALLS)}


def keep_candidates(scores_QC: Tensor, num_kept: int) -> Tensor:
    """Return scores (Q, C) whose rows keep their best candidates only; the others get `REJECTED`.

    The released evaluation keeps 128. It cannot change a recall at K up to that: a right answer that is rejected had
    that many better ones. Scores equal to the last kept one are kept as well, so that no order among ties is needed.

    Args:
        num_kept: best candidates of each query; more than there are keeps all.
    """
    least_Q1 = scores_QC.topk(min(num_kept, scores_QC.shape[1]), dim=1).values[:, -1:]
    return scores_QC.where(scores_QC >= least_Q1, REJECTED)


def image_ranks(scores_MN: Tensor, text_to_image_M: Tensor) -> Tensor:
    """Return (M,) how many wrong images score at least as high as the caption's own image."""
    own_M1 = scores_MN.gather(1, text_to_image_M[:, None])
    return (scores_MN >= own_M1).sum(1) - 1  # the own image is not a wrong one


def text_ranks(scores_NM: Tensor, text_to_image_M: Tensor, first_image: int = 0) -> Tensor:
    """Return (N,) how many wrong captions score at least as high as the best of the image's own captions.

    Args:
        scores_NM: of images `first_image` to `first_image + N - 1` against all captions.
    """
    inside_M = (text_to_image_M >= first_image) & (text_to_image_M < first_image + len(scores_NM))
    owner = text_to_image_M[inside_M] - first_image
    own = scores_NM[owner, inside_M.nonzero()[:, 0]]
    best_N = own.new_full((len(scores_NM),), -torch.inf).scatter_reduce(0, owner, own, "amax")
    own_at_best = (own >= best_N[owner]).long()
    num_own_at_best_N = torch.zeros_like(best_N, dtype=torch.long).scatter_add(0, owner, own_at_best)
    return (scores_NM >= best_N[:, None]).sum(1) - num_own_at_best_N


def _percent_below(ranks: Tensor, k: int) -> float:
    return 100 * int((ranks < k).sum()) / len(ranks)


def chance_recalls(text_to_image_M: Tensor) -> dict[str, float]:
    """Return the recalls, in percent, that a uniformly random ranking reaches on average (this project's closed form).

    A caption finds its image among K of N with probability K / N. An image with n of M captions misses all of
    them with probability C(M - n, K) / C(M, K).

    Args:
        text_to_image_M: (M,) int64, the image that each caption belongs to.
    """
    captions_per_image = torch.bincount(text_to_image_M).tolist()
    num_images, num_texts = len(captions_per_image), len(text_to_image_M)
    image = {f"ir_at_{k}": 100 * min(k / num_images, 1.0) for k in TOP_K}
    text = {f"tr_at_{k}": 100 * _mean([_chance_of_any(n, num_texts, k) for n in captions_per_image]) for k in TOP_K}
    return with_mean(image | text)


def _chance_of_any(num_right: int, num_all: int, k: int) -> float:
    """Return the probability that k draws without replacement hold at least one of the right candidates."""
    k = min(k, num_all)
    return 1 - math.comb(num_all - num_right, k) / math.comb(num_all, k)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _check(scores_NM: Tensor, text_scores_MN: Tensor, text_to_image_M: Tensor) -> None:
    num_images, num_texts = scores_NM.shape
    if text_scores_MN.shape != (num_texts, num_images) or text_to_image_M.shape != (num_texts,):
        raise ValueError(f"retrieval scores: images x captions {tuple(scores_NM.shape)}, captions x images "
                         f"{tuple(text_scores_MN.shape)} and owners {tuple(text_to_image_M.shape)} disagree; "
                         "expected (N, M), (M, N) and (M,)")
    check_scores(scores_NM)
    check_scores(text_scores_MN)
    check_owners(text_to_image_M, num_images)


def check_scores(scores: Tensor) -> None:
    """Refuse scores that cannot be ranked.

    Raises:
        ValueError: one is NaN or infinite.
    """
    if not torch.isfinite(scores).all():
        raise ValueError("retrieval scores: found NaN or infinity, which no ranking can hold; "
                         "the model diverged: lower its learning rate")


def check_owners(text_to_image_M: Tensor, num_images: int) -> None:
    """Check that captions belong to images, and that every image has one.

    Raises:
        ValueError: they do not, or it has none.
    """
    if len(text_to_image_M) == 0 or text_to_image_M.min() < 0 or text_to_image_M.max() >= num_images:
        raise ValueError(f"retrieval scores: caption owners must lie in 0..{num_images - 1}")
    if (torch.bincount(text_to_image_M, minlength=num_images) == 0).any():
        raise ValueError("retrieval scores: every image needs at least one caption; "
                         f"image {int((torch.bincount(text_to_image_M, minlength=num_images) == 0).nonzero()[0])} "
                         "has none")
