"""Variants of evaluating one set of 100 pairs with five students, on random images of the embedded set's sizes.

Ours begin with the set's pixels and score validation and test; the features of those splits are at hand, as they are in
a workspace, where they are made once for all sets. The released way scores test alone, and remembers no features.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from benchmarks.released_evaluation import RetrievalTask, Student, evaluate_one_student
from repblend.data.features import SplitFeatures
from repblend.encoders.image import ImageEncoder, encode_in_chunks
from repblend.evaluation.protocol import Evaluator, initial_heads, student_batches
from repblend.evaluation.student import Recipe
from repblend.evaluation.towers import HeadPair
from repblend.matching.student import PerModality

SEEDS, EPOCHS, INTERVALS, BATCH_SIZE, CHUNK = 5, 100, 5, 128, 20
"""As published: 101 epochs, scored after every twentieth."""
IMAGE_SIZE, PAIRS, VAL, TEST, TEXT_WIDTH, HEAD_WIDTH = 64, 100, (200, 291), (300, 448), 384, 256
"""VAL and TEST: images and captions."""
RECIPE = Recipe(0.01, 0.01, 0.9, 5e-4, "wbce", 0.07, 51)


@dataclass(frozen=True)
class EvaluationBench:
    """The set, the splits and the students that all variants share."""

    encoder: ImageEncoder
    plain: nn.Module
    """The same network as it comes: BatchNorm layers not folded, plain memory layout."""

    @cached_property
    def heads(self) -> HeadPair:
        return HeadPair.of_widths(self.encoder.feature_dim, TEXT_WIDTH, HEAD_WIDTH)

    @cached_property
    def pixels(self) -> list[Tensor]:
        """Of the set, of validation and of test."""
        draws = torch.Generator().manual_seed(0)
        return [torch.randn(num, 3, IMAGE_SIZE, IMAGE_SIZE, generator=draws) for num in (PAIRS, VAL[0], TEST[0])]

    @cached_property
    def texts(self) -> list[Tensor]:
        draws = torch.Generator().manual_seed(1)
        return [torch.randn(num, TEXT_WIDTH, generator=draws) for num in (PAIRS, VAL[1], TEST[1])]

    @cached_property
    def evaluator(self) -> Evaluator:
        splits = {name: SplitFeatures(encode_in_chunks(self.encoder, self.pixels[number], CHUNK), self.texts[number],
                                      _owners(sizes)) for number, (name, sizes) in enumerate(
                                          (("val", VAL), ("test", TEST)), start=1)}
        return Evaluator(splits, self.heads, 0, SEEDS, EPOCHS, INTERVALS, BATCH_SIZE)

    def ours(self, evaluator: Evaluator) -> list[list[dict[str, float]]]:
        """Evaluate the set as this project does; return the recalls on test, scored epoch by student."""
        features = encode_in_chunks(self.encoder, self.pixels[0], CHUNK)
        return evaluator.evaluate_set(features, self.texts[0], torch.eye(PAIRS), RECIPE).recalls["test"]

    def one_after_the_other(self) -> None:
        """Evaluate the set with five evaluations of one student each."""
        for seed in range(SEEDS):
            self.ours(replace(self.evaluator, seed=seed, num_seeds=1))

    def released(self) -> list[dict[str, float]]:
        """Evaluate the set with the first student alone, the released way; return its recalls by scored epoch."""
        initial = initial_heads(0, 1, self.heads)
        student = Student(self.plain, (self.heads.img, self.heads.txt), PerModality(initial.img[0], initial.txt[0]))
        batches = student_batches(0, 1, PAIRS, EPOCHS, BATCH_SIZE)[0]
        return evaluate_one_student(self.pixels[0], self.texts[0], torch.eye(PAIRS), student, batches, RECIPE,
                                    self.evaluator.scores().epochs,
                                    RetrievalTask(self.pixels[2], self.texts[2], _owners(TEST)))

    def variants(self) -> dict[str, Callable[[], object]]:
        """Return the variants of this project to time, by name."""
        assert self.evaluator.splits  # makes the splits' features
        return {"five at once": lambda: self.ours(self.evaluator), "one after the other": self.one_after_the_other}


def _owners(sizes: tuple[int, int]) -> Tensor:
    return torch.arange(sizes[1]) % sizes[0]
