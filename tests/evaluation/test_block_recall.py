"""Recall in blocks against recall of the whole matrix: the same to the last bit for every size of a block."""

import pytest
import torch

from repblend.evaluation.block_recall import block_recalls, embedding_recalls
from repblend.evaluation.recall import keep_candidates, retrieval_recalls
from repblend.matching.losses import cosine_logits

NUM_IMAGES = 23


def some_owners(num_images: int = NUM_IMAGES) -> torch.Tensor:
    """1 to 4 captions per image, in no order."""
    generator = torch.Generator().manual_seed(1)
    owners = torch.arange(num_images).repeat_interleave(torch.randint(1, 5, (num_images,), generator=generator))
    return owners[torch.randperm(len(owners), generator=generator)]


def rows_of(scores: torch.Tensor):
    return lambda first, end: scores[first:end].clone()


@pytest.mark.parametrize("rows", [1, 2, 5, 22, 23, 24, 1000])
@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_any_size_of_block_gives_the_same_recalls(rows: int, levels: int) -> None:
    """With few levels, most scores are ties."""
    owners = some_owners()
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        scores = torch.randint(levels, (NUM_IMAGES, len(owners)), generator=generator).float()
        scores[owners, torch.arange(len(owners))] += torch.randint(levels, (len(owners),), generator=generator)
        assert block_recalls(rows_of(scores), NUM_IMAGES, owners, rows) == retrieval_recalls(scores, owners)
        for kept in (1, 3, 6, 128):
            whole = retrieval_recalls(keep_candidates(scores, kept), owners, keep_candidates(scores.mT, kept))
            assert block_recalls(rows_of(scores), NUM_IMAGES, owners, rows, kept) == whole


@pytest.mark.parametrize("rows", [1, 4, 23])
def test_equal_scores_are_the_worst_in_blocks_as_well(rows: int) -> None:
    owners = some_owners()
    recalls = block_recalls(rows_of(torch.zeros(NUM_IMAGES, len(owners))), NUM_IMAGES, owners, rows)
    assert set(recalls.values()) == {0.0}


@pytest.mark.parametrize("rows", [1, 7, 23])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("image", [0, 11, 22])
@pytest.mark.parametrize("candidates", [None, 5])
def test_what_cannot_be_ranked_is_refused_in_any_block(rows: int, value: float, image: int,
                                                       candidates: int | None) -> None:
    scores = torch.rand(NUM_IMAGES, len(some_owners()), generator=torch.Generator().manual_seed(0))
    scores[image, 3] = value
    with pytest.raises(ValueError, match="found NaN or infinity"):
        block_recalls(rows_of(scores), NUM_IMAGES, some_owners(), rows, candidates)


@pytest.mark.parametrize(("owners", "message"), [([0, 1, 3], "image 2 has none"), ([0, 1, 2, 4], "must lie in 0..3")])
def test_wrong_owners_are_refused_in_blocks_as_well(owners: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        block_recalls(rows_of(torch.rand(4, len(owners))), 4, torch.tensor(owners), rows=2)


@pytest.mark.parametrize("scores_at_once", [1, 100, 1000, 2**24])
def test_cosines_of_embeddings_give_the_recalls_of_their_whole_matrix(scores_at_once: int) -> None:
    """Signs of four numbers: lengths are 2 and cosines multiples of 1/2, so every product is exact, and ties abound."""
    generator, owners = torch.Generator().manual_seed(0), some_owners()
    images = torch.randint(2, (NUM_IMAGES, 4), generator=generator) * 2.0 - 1
    texts = images[owners].clone()
    noisy = torch.rand(len(owners), generator=generator) < 0.5
    texts[noisy] *= torch.randint(2, (int(noisy.sum()), 4), generator=generator) * 2.0 - 1
    whole = retrieval_recalls(cosine_logits(images, texts, temperature=1.0), owners)
    assert embedding_recalls(images, texts, owners, None, scores_at_once) == whole


def test_most_scores_are_never_in_memory() -> None:
    asked: list[int] = []
    owners = torch.arange(1000)

    def score_rows(first: int, end: int) -> torch.Tensor:
        asked.append(end - first)
        return torch.eye(1000)[first:end]

    assert block_recalls(score_rows, 1000, owners, rows=64)["mean_recall"] == 100.0
    assert max(asked) == 64 and sum(asked) == 2 * 1000
