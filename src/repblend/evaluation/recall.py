"""Recall at 1, 5 and 10 in both directions of image-text retrieval (`paper/METHOD.md`, section 9), and that of chance.

- IR@K: share of the *captions* (queries) whose own image is among the first K images.
- TR@K: share of the *images* (queries) with any of their own captions among the first K captions.
- mean recall: the plain mean of the six.

All in percent. The rank of a query's answer is the number of wrong candidates that score at least as high, and a
query counts when that rank is below K.

Ties, by this project's definition, are lost: a wrong candidate with the same score is ranked ahead. A model that
gives every pair the same score therefore gets the worst result, not the best. The captions of one image never
compete with each other. The published code leaves the order among ties to a sort; without ties both agree.

Shapes: N images, M captions, Q queries, C candidates, n images of a block, D embedding width.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from repblend.matching.losses import unit

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
    scores_MN = scores_NM.T if text_scores_MN is None else text_scores_MN
    num_images, num_texts = scores_NM.shape
    if scores_MN.shape != (num_texts, num_images) or text_to_image_M.shape != (num_texts,):
        raise ValueError(f"retrieval scores: images x captions {tuple(scores_NM.shape)}, captions x images "
                         f"{tuple(scores_MN.shape)} and owners {tuple(text_to_image_M.shape)} disagree; "
                         "expected (N, M), (M, N) and (M,)")
    _check_scores(scores_NM)
    if text_scores_MN is not None:
        _check_scores(text_scores_MN)
    _check_owners(text_to_image_M, num_images)
    return recalls_of_ranks(image_ranks(scores_MN, text_to_image_M), text_ranks(scores_NM, text_to_image_M))


def recalls_of_ranks(image_ranks_M: Tensor, text_ranks_N: Tensor) -> dict[str, float]:
    """Return the six recalls and their mean, in percent, from what `image_ranks` and `text_ranks` give."""
    ranks = {"ir": image_ranks_M, "tr": text_ranks_N}
    return _with_mean({f"{direction}_at_{k}": 100 * int((ranks[direction] < k).sum()) / len(ranks[direction])
                       for direction in ranks for k in TOP_K})


def _with_mean(recalls: dict[str, float]) -> dict[str, float]:
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
    own_M = scores_MN.gather(1, text_to_image_M[:, None])[:, 0]
    # Down the columns of the transpose, which is how scores lie in memory where they are those of captions as well.
    return (scores_MN.mT >= own_M).sum(0) - 1  # the own image is not a wrong one


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

    def chance_of_any(num_right: int, k: int) -> float:
        return 1 - math.comb(num_texts - num_right, k) / math.comb(num_texts, k)

    text = {f"tr_at_{k}": 100 * (sum(chance_of_any(n, min(k, num_texts)) for n in captions_per_image) / num_images)
            for k in TOP_K}
    return _with_mean(image | text)


def _check_scores(scores: Tensor) -> None:
    # A sum is read once and quickly. It is finite only where all terms are; it may overflow where they are.
    if not scores.sum().isfinite() and not torch.isfinite(scores).all():
        raise ValueError("retrieval scores: found NaN or infinity, which no ranking can hold; "
                         "the model diverged: lower its learning rate")


def _check_owners(text_to_image_M: Tensor, num_images: int) -> None:
    if len(text_to_image_M) == 0 or text_to_image_M.min() < 0 or text_to_image_M.max() >= num_images:
        raise ValueError(f"retrieval scores: caption owners must lie in 0..{num_images - 1}")
    without = torch.bincount(text_to_image_M, minlength=num_images) == 0
    if without.any():
        raise ValueError("retrieval scores: every image needs at least one caption; "
                         f"image {int(without.nonzero()[0])} has none. Remove it, or give it one")


# Recall of a split whose scores do not fit into memory: a block of images against all captions at a time. Exactly what
# is said above of the whole matrix, ties and NaN included, as long as a block's scores are the whole matrix's rows.
# (Products of other shapes may differ in their last bits, so sets up to `SCORES_AT_ONCE` scores are one block.) Scores
# are computed twice: how many images outscore a caption's own is known only when its own score is.

SCORES_AT_ONCE = 2**24
"""Scores of a block: 64 MiB as float32. COCO's 5,000 x 25,010 are 8 blocks, Flickr30K's 1,000 x 5,000 one."""

ScoreRows = Callable[[int, int], Tensor]
"""From the first and behind the last image of a block to its scores, (n, M), the same whenever it is asked."""


def embedding_recalls(images_ND: Tensor, texts_MD: Tensor, text_to_image_M: Tensor, candidates: int | None = None,
                      scores_at_once: int = SCORES_AT_ONCE) -> dict[str, float]:
    """Return the six recalls and their mean, in percent, by the cosines of embeddings of any length.

    Args:
        images_ND: (N, D). Products are taken where the embeddings are, ranks counted on the CPU.
        texts_MD: (M, D).
        text_to_image_M: (M,) int64, the image that each caption belongs to; every image has at least one caption.
        candidates: how many of a query's best candidates keep their scores (`keep_candidates`); None for all.
        scores_at_once: scores of a block, but for one image's at least.

    Raises:
        ValueError: a score is NaN or infinite, or an image has no caption.
    """
    units_ND, units_MD = unit(images_ND), unit(texts_MD)
    rows = max(1, scores_at_once // len(texts_MD))
    return block_recalls(lambda first, end: (units_ND[first:end] @ units_MD.mT).cpu(), len(images_ND), text_to_image_M,
                         rows, candidates)


def block_recalls(score_rows: ScoreRows, num_images: int, text_to_image_M: Tensor, rows: int,
                  candidates: int | None = None) -> dict[str, float]:
    """Return `retrieval_recalls` of scores that are computed a block of rows at a time.

    Args:
        score_rows: the scores of a block of images against all captions, higher is better.
        text_to_image_M: (M,) int64.
        rows: images of a block.
        candidates: how many of a query's best candidates keep their scores (`keep_candidates`); None for all.

    Raises:
        ValueError: as `retrieval_recalls`.
    """
    if candidates is not None and candidates >= TOP_K[-1]:
        candidates = None  # no recall depends on them, as `keep_candidates` says, and all are finite once checked
    if num_images <= rows:
        scores_NM = score_rows(0, num_images)
        if candidates is None:
            return retrieval_recalls(scores_NM, text_to_image_M)
        _check_scores(scores_NM)  # a candidate that is NaN would be rejected and so go unseen
        return retrieval_recalls(keep_candidates(scores_NM, candidates), text_to_image_M,
                                 keep_candidates(scores_NM.mT, candidates))
    _check_owners(text_to_image_M, num_images)
    blocks = [(first, min(first + rows, num_images)) for first in range(0, num_images, rows)]
    own_M, text_ranks_N = _own_scores(score_rows, blocks, text_to_image_M, candidates)
    return recalls_of_ranks(_image_ranks(score_rows, blocks, own_M, candidates or num_images), text_ranks_N)


def _image_ranks(score_rows: ScoreRows, blocks: list[tuple[int, int]], own_M: Tensor, num_kept: int) -> Tensor:
    """`image_ranks` of what `keep_candidates` leaves: an own image that it rejects ties with all the others."""
    at_least_own_M, above_own_M = torch.zeros(2, len(own_M), dtype=torch.long)
    for block in blocks:
        scores_nM = score_rows(*block)
        at_least_own_M += (scores_nM >= own_M).sum(0)
        above_own_M += (scores_nM > own_M).sum(0)
    num_images = blocks[-1][1]
    return torch.where(above_own_M < num_kept, at_least_own_M, num_images) - 1  # the own image is not a wrong one


def _own_scores(score_rows: ScoreRows, blocks: list[tuple[int, int]], text_to_image_M: Tensor,
                candidates: int | None) -> tuple[Tensor, Tensor]:
    """Each caption's score with its own image, (M,), and each image's rank of its best caption, (N,)."""
    own_M, ranks = torch.empty(0), []
    for first, end in blocks:
        scores_nM = score_rows(first, end)
        _check_scores(scores_nM)
        inside_M = (text_to_image_M >= first) & (text_to_image_M < end)
        own_M = own_M if len(own_M) else scores_nM.new_empty(len(text_to_image_M))
        own_M[inside_M] = scores_nM[text_to_image_M[inside_M] - first, inside_M.nonzero()[:, 0]]
        kept_nM = scores_nM if candidates is None else keep_candidates(scores_nM, candidates)
        ranks.append(text_ranks(kept_nM, text_to_image_M, first))
    return own_M, torch.cat(ranks)
