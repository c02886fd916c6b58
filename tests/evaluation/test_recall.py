"""Recall against its definition, on ties and bad scores, and against what chance gives."""

import math

import pytest
import torch
from torch import Tensor

from repblend.evaluation.recall import (
    MEAN_RECALL,
    RECALLS,
    TOP_K,
    block_recalls,
    chance_recalls,
    embedding_recalls,
    image_ranks,
    keep_candidates,
    retrieval_recalls,
    text_ranks,
)
from repblend.matching.losses import cosine_logits


def slow_recalls(scores: list[list[float]], owners: list[int]) -> dict[str, float]:
    """The definition, query by query: sort all candidates, wrong ones first among equals; look at the first K."""
    images, texts = range(len(scores)), range(len(owners))
    hits = {name: 0 for name in RECALLS}
    for k in TOP_K:
        for text in texts:
            ranking = sorted(images, key=lambda image: (-scores[image][text], image == owners[text]))
            hits[f"ir_at_{k}"] += owners[text] in ranking[:k]
        for image in images:
            ranking = sorted(texts, key=lambda text: (-scores[image][text], owners[text] == image))
            hits[f"tr_at_{k}"] += any(owners[text] == image for text in ranking[:k])
    percent = {name: 100 * count / (len(texts) if name.startswith("ir") else len(images))
               for name, count in hits.items()}
    return percent | {MEAN_RECALL: sum(percent.values()) / 6}


def some_owners(captions_per_image: list[int], draws: torch.Generator) -> Tensor:
    """Owners of the captions, in an order that is not the images'."""
    owners = torch.arange(len(captions_per_image)).repeat_interleave(torch.tensor(captions_per_image))
    return owners[torch.randperm(len(owners), generator=draws)]


def signal(owners: Tensor, num_images: int) -> Tensor:
    """(N, M): 1 where a caption belongs to an image."""
    return (torch.arange(num_images)[:, None] == owners).double()


@pytest.mark.parametrize("captions_per_image", [[1] * 20, [5] * 12, [1, 4, 2, 1, 7, 3, 1, 1, 2, 5, 1, 2]],
                         ids=["one caption", "five captions", "any number of captions"])
@pytest.mark.parametrize("levels", [1000, 4], ids=["hardly any tie", "many ties"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_recalls_equal_the_definition(captions_per_image: list[int], levels: int, dtype: torch.dtype) -> None:
    draws = torch.Generator().manual_seed(len(captions_per_image) + levels)
    owners = some_owners(captions_per_image, draws)
    noise = torch.randint(levels, (len(captions_per_image), len(owners)), generator=draws) / levels
    scores = (noise + 0.4 * signal(owners, len(captions_per_image))).to(dtype)
    assert retrieval_recalls(scores, owners) == pytest.approx(slow_recalls(scores.tolist(), owners.tolist()), abs=1e-9)


def test_a_hand_made_example() -> None:
    """Two images of two captions each. Caption 1 prefers the wrong image; image 1 prefers a wrong caption."""
    scores = torch.tensor([[0.9, 0.1, 0.8, 0.2],
                           [0.1, 0.3, 0.7, 0.6]])
    owners = torch.tensor([0, 0, 1, 1])
    assert image_ranks(scores.T, owners).tolist() == [0, 1, 1, 0]
    assert text_ranks(scores, owners).tolist() == [0, 0]
    recalls = retrieval_recalls(scores, owners)
    assert (recalls["ir_at_1"], recalls["tr_at_1"], recalls["ir_at_5"]) == (50.0, 100.0, 100.0)
    assert recalls[MEAN_RECALL] == pytest.approx((50 + 5 * 100) / 6)


def test_the_direction_of_a_recall_is_its_querys() -> None:
    """Every caption scores image 0 highest, and every image finds its own caption: IR is poor, TR perfect."""
    scores = torch.eye(20, dtype=torch.float64)
    scores[0] += 2
    recalls = retrieval_recalls(scores, torch.arange(20))
    assert recalls["ir_at_1"] == pytest.approx(5.0)
    assert recalls["tr_at_1"] == 100.0


def test_a_separate_matrix_ranks_images() -> None:
    right, wrong = torch.eye(20), 1 - torch.eye(20)
    owners = torch.arange(20)
    recalls = retrieval_recalls(right, owners, wrong)
    assert [recalls[f"tr_at_{k}"] for k in TOP_K] == [100.0] * 3
    assert [recalls[f"ir_at_{k}"] for k in TOP_K] == [0.0] * 3


@pytest.mark.parametrize("captions", [1, 5])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_equal_scores_give_the_worst_result(captions: int, value: float) -> None:
    owners = torch.arange(30).repeat_interleave(captions)
    assert set(retrieval_recalls(torch.full((30, len(owners)), value), owners).values()) == {0.0}


def test_a_perfect_model_gets_everything() -> None:
    owners = torch.arange(30).repeat_interleave(2)
    assert set(retrieval_recalls(signal(owners, 30), owners).values()) == {100.0}


def test_one_wrong_candidate_with_the_same_score_is_ranked_ahead() -> None:
    scores = torch.eye(20)
    scores[3, 4] = 1.0  # image 3 against caption 4: as good as both of their own partners
    recalls = retrieval_recalls(scores, torch.arange(20))
    assert (recalls["ir_at_1"], recalls["tr_at_1"]) == (95.0, 95.0)
    assert (recalls["ir_at_5"], recalls["tr_at_5"]) == (100.0, 100.0)


def test_captions_of_one_image_do_not_compete() -> None:
    """Twelve captions of one image with one score: all of them are right."""
    owners = torch.arange(3).repeat_interleave(12)
    recalls = retrieval_recalls(signal(owners, 3), owners)
    assert recalls["tr_at_1"] == 100.0


def test_the_order_of_images_and_captions_does_not_matter() -> None:
    draws = torch.Generator().manual_seed(3)
    owners = some_owners([1, 2, 3, 4] * 5, draws)
    scores = torch.randn(20, len(owners), generator=draws)
    rows, columns = torch.randperm(20, generator=draws), torch.randperm(len(owners), generator=draws)
    shuffled = retrieval_recalls(scores[rows][:, columns], rows.argsort()[owners[columns]])
    assert shuffled == retrieval_recalls(scores, owners)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_an_error_and_never_a_win(bad: float) -> None:
    one, every = torch.eye(20), torch.full((20, 20), bad)
    one[7, 7] = bad
    for scores in (one, every):
        with pytest.raises(ValueError, match="found NaN or infinity"):
            retrieval_recalls(scores, torch.arange(20))
        with pytest.raises(ValueError, match="found NaN or infinity"):
            retrieval_recalls(torch.eye(20), torch.arange(20), scores)


@pytest.mark.parametrize(("shape", "owners", "message"), [
    ((3, 4), [0, 1, 2], "disagree"),
    ((3, 3), [0, 1, 3], "0..2"),
    ((3, 3), [0, 1, -1], "0..2"),
    ((3, 3), [0, 0, 2], "image 1 has none"),
    ((3, 0), [], "owners must lie"),
])
def test_captions_that_do_not_fit_the_images_are_an_error(shape: tuple, owners: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval_recalls(torch.zeros(shape), torch.tensor(owners, dtype=torch.long))


@pytest.mark.parametrize("kept", [10, 128])
def test_cutting_to_the_best_candidates_of_each_query_changes_nothing(kept: int) -> None:
    """As the released evaluation does; it needs that many candidates on both sides."""
    draws = torch.Generator().manual_seed(5)
    owners = some_owners([1, 2, 3] * 50, draws)
    scores = torch.randn(150, len(owners), generator=draws) + 2 * signal(owners, 150)

    cut = keep_candidates(scores, kept)
    assert (cut > -100).sum(1).tolist() == [kept] * 150
    for scored in (scores, scores.round()):  # the second has ties everywhere
        found = retrieval_recalls(keep_candidates(scored, kept), owners, keep_candidates(scored.T, kept))
        assert found == retrieval_recalls(scored, owners)


def test_candidates_that_tie_with_the_last_one_kept_are_kept() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 2.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    assert keep_candidates(scores, 2).tolist() == [[3, -100, 2, 2, -100], [-100, -100, -100, 4, 5]]
    assert torch.equal(keep_candidates(scores, 6), scores)


def test_an_answer_that_was_not_kept_is_not_found() -> None:
    """Own answers are second among 20: one candidate kept loses all, also at K = 10."""
    scores = torch.eye(20) + 2 * torch.eye(20).roll(1, 0)
    assert retrieval_recalls(scores, torch.arange(20))["ir_at_5"] == 100.0
    cut = retrieval_recalls(keep_candidates(scores, 1), torch.arange(20), keep_candidates(scores.T, 1))
    assert set(cut.values()) == {0.0}


@pytest.mark.parametrize("captions_per_image", [[1] * 30, [1, 2, 3, 4, 5, 6] * 5])
def test_chance_equals_the_average_of_random_rankings(captions_per_image: list[int]) -> None:
    draws = torch.Generator().manual_seed(11)
    owners, rounds = some_owners(captions_per_image, draws), 3000
    drawn = [retrieval_recalls(torch.rand(30, len(owners), generator=draws, dtype=torch.float64), owners)
             for _ in range(rounds)]
    for name, expected in chance_recalls(owners).items():
        values = torch.tensor([recalls[name] for recalls in drawn])
        assert values.mean().item() == pytest.approx(expected, abs=4 * values.std().item() / math.sqrt(rounds)), name


def test_chance_with_one_caption_per_image_is_k_of_n_in_both_directions() -> None:
    chance = chance_recalls(torch.arange(50))
    assert [chance[f"ir_at_{k}"] for k in TOP_K] == pytest.approx([2.0, 10.0, 20.0])
    assert [chance[f"tr_at_{k}"] for k in TOP_K] == pytest.approx([2.0, 10.0, 20.0])


def test_chance_is_certain_when_k_covers_every_candidate() -> None:
    chance = chance_recalls(torch.tensor([0, 0, 1, 2]))
    assert (chance["ir_at_5"], chance["ir_at_10"], chance["tr_at_5"], chance["tr_at_10"]) == (100.0,) * 4
    assert chance["tr_at_1"] == pytest.approx(100 * (2 + 1 + 1) / 4 / 3)


def test_a_large_test_split_is_ranked_at_once() -> None:
    """The size of MS-COCO's test split: exact, without a mask of images times captions per caption."""
    owners = torch.arange(1000).repeat_interleave(5)
    scores = torch.zeros(1000, 5000)
    scores[owners, torch.arange(5000)] = 1.0
    assert retrieval_recalls(scores, owners)[MEAN_RECALL] == 100.0


# A block of images at a time: exactly the recalls of the whole matrix.


NUM_IMAGES = 23


def block_owners(num_images: int = NUM_IMAGES) -> torch.Tensor:
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
    owners = block_owners()
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
    owners = block_owners()
    recalls = block_recalls(rows_of(torch.zeros(NUM_IMAGES, len(owners))), NUM_IMAGES, owners, rows)
    assert set(recalls.values()) == {0.0}


@pytest.mark.parametrize("rows", [1, 7, 23])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("image", [0, 11, 22])
@pytest.mark.parametrize("candidates", [None, 5])
def test_what_cannot_be_ranked_is_refused_in_any_block(rows: int, value: float, image: int,
                                                       candidates: int | None) -> None:
    scores = torch.rand(NUM_IMAGES, len(block_owners()), generator=torch.Generator().manual_seed(0))
    scores[image, 3] = value
    with pytest.raises(ValueError, match="found NaN or infinity"):
        block_recalls(rows_of(scores), NUM_IMAGES, block_owners(), rows, candidates)


@pytest.mark.parametrize(("owners", "message"), [([0, 1, 3], "image 2 has none"), ([0, 1, 2, 4], "must lie in 0..3")])
def test_wrong_owners_are_refused_in_blocks_as_well(owners: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        block_recalls(rows_of(torch.rand(4, len(owners))), 4, torch.tensor(owners), rows=2)


@pytest.mark.parametrize("scores_at_once", [1, 100, 1000, 2**24])
def test_cosines_of_embeddings_give_the_recalls_of_their_whole_matrix(scores_at_once: int) -> None:
    """Signs of four numbers: lengths are 2 and cosines multiples of 1/2, so every product is exact, and ties abound."""
    generator, owners = torch.Generator().manual_seed(0), block_owners()
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
