"""Recall of a split whose scores do not fit into memory: a block of images against all captions at a time.

Exactly what `repblend.evaluation.recall` says of the whole matrix, ties and NaN included, as long as a block's scores
are the whole matrix's rows. (Products of other shapes may differ in their last bits, so sets up to `SCORES_AT_ONCE`
scores are one block.) Scores are computed twice: how many images outscore a caption's own is known only when its own
score is.

Shapes: N images, M captions, n images of a block, D embedding width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from repblend.evaluation.recall import (
    check_owners,
    check_scores,
    keep_candidates,
    recalls_of_ranks,
    retrieval_recalls,
    text_ranks,
)
from repblend.matching.losses import unit

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
    if num_images <= rows:
        scores_NM = score_rows(0, num_images)
        check_scores(scores_NM)  # a candidate that is NaN would be rejected and so go unseen
        return retrieval_recalls(_kept(scores_NM, candidates), text_to_image_M, _kept(scores_NM.mT, candidates))
    check_owners(text_to_image_M, num_images)
    blocks = [(first, min(first + rows, num_images)) for first in range(0, num_images, rows)]
    own_M, text_ranks_N = _own_scores(score_rows, blocks, text_to_image_M, candidates)
    return recalls_of_ranks(_image_ranks(score_rows, blocks, own_M, candidates or num_images), text_ranks_N)


def _kept(scores_QC: Tensor, candidates: int | None) -> Tensor:
    return scores_QC if candidates is None else keep_candidates(scores_QC, candidates)


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
    own_M, ranks = None, []
    for first, end in blocks:
        scores_nM = score_rows(first, end)
        check_scores(scores_nM)
        inside_M = (text_to_image_M >= first) & (text_to_image_M < end)
        own_M = scores_nM.new_empty(len(text_to_image_M)) if own_M is None else own_M
        own_M[inside_M] = scores_nM[text_to_image_M[inside_M] - first, inside_M.nonzero()[:, 0]]
        ranks.append(text_ranks(_kept(scores_nM, candidates), text_to_image_M, first))
    return own_M, torch.cat(ranks)
