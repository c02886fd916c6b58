"""The benchmark's yardstick is a fair one: it reaches the recalls that this project's evaluation reaches."""

import pytest
import torch
from torch import nn

from benchmarks.released_evaluation import RetrievalTask, Student, evaluate_one_student
from repblend.data.features import SplitFeatures
from repblend.encoders.heads import HeadSpec
from repblend.evaluation.protocol import Evaluator, initial_heads, student_batches
from repblend.evaluation.student import Recipe
from repblend.evaluation.towers import HeadPair
from repblend.matching.student import PerModality

PAIRS, IMAGES, CAPTIONS, EPOCHS = 12, 140, 190, 10


@pytest.mark.parametrize("batch_size", [5, 128])
def test_the_released_evaluation_reaches_the_same_recalls(batch_size: int) -> None:
    draws = torch.Generator().manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()).requires_grad_(False)
    heads = HeadPair(HeadSpec(16, 8), HeadSpec(7, 8))
    images, test_images = (torch.randn(num, 3, 6, 6, generator=draws) for num in (PAIRS, IMAGES))
    texts, test_texts = (torch.randn(num, 7, generator=draws) for num in (PAIRS, CAPTIONS))
    targets = torch.eye(PAIRS) + 0.1 * torch.randn(PAIRS, PAIRS, generator=draws)
    owners, recipe = torch.arange(CAPTIONS) % IMAGES, Recipe(0.1, 0.2, 0.9, 5e-4, "wbce", 0.07, 6)

    split = SplitFeatures(encoder(test_images), test_texts, owners)
    evaluator = Evaluator({"test": split}, heads, 0, 2, EPOCHS, 5, batch_size)
    ours = evaluator.evaluate_set(encoder(images), texts, targets, recipe)

    initial = initial_heads(0, 2, heads)
    for seed, batches in enumerate(student_batches(0, 2, PAIRS, EPOCHS, batch_size)):
        student = Student(encoder, (heads.img, heads.txt), PerModality(*(side[seed] for side in initial)))
        found = evaluate_one_student(images, texts, targets, student, batches, recipe, ours.epochs,
                                     RetrievalTask(test_images, test_texts, owners))
        assert found == [recalls[seed] for recalls in ours.recalls["test"]]
        assert len({recalls["mean_recall"] for recalls in found}) > 2
