"""Zero-shot classification against brute-force twins and tasks that can be made by hand."""

import math
import statistics

import pytest
import torch
from torch import Tensor

from repblend.encoders.heads import HeadSpec
from repblend.evaluation.protocol import initial_heads
from repblend.evaluation.towers import HeadPair
from repblend.evaluation.zero_shot import FUNCTION_WORDS, WordScores, frequent_words, top1_accuracy, word_task
from repblend.matching.student import PerModality

HEADS = HeadPair(HeadSpec(6, 5), HeadSpec(4, 5))
CAPTIONS = [
    ["red cat", "cat cat"],  # cat counts once
    ["red dog with a hat"],
    ["dog and cat"],  # two of the words: left out
    ["blue bird"],  # none of the words: left out
    ["dog in an ox"],
    ["red hat"],
]


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_task_that_can_be_made_by_hand() -> None:
    task = word_task(CAPTIONS, num_words=2)
    assert task.words == ["dog", "red"]  # each in three images; "cat" is in two only
    assert (task.images.tolist(), task.labels.tolist()) == ([0, 2, 4, 5], [1, 0, 0, 1])
    assert (task.chance, task.majority) == (50.0, 50.0)
    assert word_task(CAPTIONS, num_words=3).words == ["dog", "red", "cat"]


def test_short_words_and_words_that_name_nothing_are_no_classes() -> None:
    words = frequent_words([{"ox", "with", "and", "cat", "dog"}, {"ox", "with", "dog"}], 2)
    assert words == ["dog", "cat"]
    assert {"with", "and", "the"} <= FUNCTION_WORDS


def some_captions(seed: int) -> list[list[str]]:
    letters = torch.randint(9, (80, 2, 3), generator=draws(seed)).tolist()
    return [[" ".join("w" * 2 + "abcdefghi"[word] for word in caption) for caption in image] for image in letters]


@pytest.mark.parametrize("seed", range(5))
def test_the_task_equals_its_definition(seed: int) -> None:
    captions = some_captions(seed)
    every = sorted({word for image in captions for caption in image for word in caption.split(" ")})
    images_with = {word: sum(any(word in caption.split(" ") for caption in image) for image in captions)
                   for word in every}
    words: list[str] = []
    while len(words) < 4:  # the best one left; `every` is in alphabetical order, and `max` takes the first
        words.append(max((word for word in every if word not in words), key=images_with.__getitem__))
    rows, labels = [], []
    for row, image in enumerate(captions):
        has = [word for word in words if any(word in caption.split(" ") for caption in image)]
        if len(has) == 1:
            rows.append(row)
            labels.append(words.index(has[0]))
    task = word_task(captions, num_words=4)
    assert (task.words, task.images.tolist(), task.labels.tolist()) == (words, rows, labels)
    assert task.majority == 100 * max(labels.count(label) for label in range(4)) / len(labels)
    assert task.chance == 25.0 and 0 < len(rows) < 80


def test_a_set_without_enough_words_or_members_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of 6 test images have 6 words .*, expected at least 10"):
        word_task(CAPTIONS)
    with pytest.raises(ValueError, match=r"none of 1 test images has exactly one of the words cat, dog"):
        word_task([["dog cat"]], num_words=2)


def slow_accuracy(scores: Tensor, labels: Tensor) -> float:
    right = sum(all(row[label] > other for column, other in enumerate(row) if column != label)
                for row, label in zip(scores.tolist(), labels.tolist(), strict=True))
    return 100 * right / len(labels)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_accuracy_equals_its_definition_with_and_without_ties(seed: int, dtype: torch.dtype) -> None:
    labels = torch.randint(4, (50,), generator=draws(seed))
    for scores in (torch.randn(50, 4, generator=draws(seed + 9)), torch.randint(3, (50, 4), generator=draws(seed))):
        assert top1_accuracy(scores.to(dtype), labels) == slow_accuracy(scores.to(dtype), labels)


def test_a_model_that_cannot_tell_classes_apart_gets_nothing() -> None:
    labels = torch.tensor([0, 1, 2, 0])
    assert top1_accuracy(torch.ones(4, 3), labels) == 0.0
    assert top1_accuracy(torch.eye(3)[labels], labels) == 100.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_an_error(value: float) -> None:
    scores = torch.eye(3)
    scores[1, 2] = value
    with pytest.raises(ValueError, match="found NaN or infinity"):
        top1_accuracy(scores, torch.arange(3))


def some_scores() -> WordScores:
    images, prompts = torch.randn(30, 6, generator=draws(1)), torch.randn(4, 4, generator=draws(2))
    return WordScores(HEADS.student, images, prompts, torch.randint(4, (30,), generator=draws(3)), [0, 2, 4])


def test_students_are_scored_at_the_scored_epochs_one_like_the_other() -> None:
    scores, heads = some_scores(), initial_heads(0, 3, HEADS)
    for epoch in range(5):
        now = PerModality(*(value * (1 + epoch) for value in heads))
        scores.record(epoch, lambda now=now: now, torch.zeros(3))
    assert sorted(scores.accuracies) == [0, 2, 4]
    for epoch, found in scores.accuracies.items():
        for seed in range(3):
            image_head, text_head = (value[seed] * (1 + epoch) for value in heads)
            cosines = torch.nn.functional.cosine_similarity(HEADS.student.image(scores.images, image_head)[:, None],
                                                            HEADS.student.text(scores.prompts, text_head)[None], dim=2)
            assert found[seed] == slow_accuracy(cosines, scores.labels)


def test_each_student_reports_the_epoch_that_was_chosen_for_it() -> None:
    scores = some_scores()
    scores.accuracies = {0: [1.0, 2.0, 3.0], 2: [10.0, 20.0, 30.0], 4: [11.0, 22.0, 33.0]}
    found = scores.held_out([4, 0, 2])
    assert found["seeds"] == [{"epoch": 4, "accuracy": 11.0}, {"epoch": 0, "accuracy": 2.0},
                              {"epoch": 2, "accuracy": 30.0}]
    assert found["selected_on"] == "val"
    assert found["mean"]["accuracy"] == pytest.approx(43 / 3)
    assert found["std"]["accuracy"] == pytest.approx(statistics.stdev([11, 2, 30]))


def test_a_student_that_diverged_is_named() -> None:
    heads = initial_heads(0, 3, HEADS)
    heads.img[1, 0] = torch.nan
    with pytest.raises(ValueError, match="student 1: classification scores: found NaN"):
        some_scores().record(0, lambda: heads, torch.zeros(3))
