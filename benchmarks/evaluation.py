"""Variants of evaluating one set of 100 pairs with five seeds, on random features of the embedded set's sizes."""

from collections.abc import Callable
from dataclasses import replace

import torch

from repblend.data.features import SplitFeatures
from repblend.encoders.heads import HeadSpec
from repblend.evaluation.protocol import Evaluator
from repblend.evaluation.student import Recipe
from repblend.evaluation.towers import HeadPair

SEEDS, EPOCHS = 5, 100


def evaluation_variants() -> dict[str, Callable[[], object]]:
    """Return the variants to time, by name: the published 101 epochs, scored after every twentieth."""
    draws = torch.Generator().manual_seed(0)
    heads = HeadPair(HeadSpec(1280, 256), HeadSpec(384, 256))

    def split(images: int, texts: int) -> SplitFeatures:
        return SplitFeatures(torch.randn(images, 1280, generator=draws), torch.randn(texts, 384, generator=draws),
                             torch.arange(texts) % images)

    evaluator = Evaluator({"val": split(200, 291), "test": split(300, 448)}, heads, 0, SEEDS, EPOCHS, 5, 128)
    images, texts = torch.randn(100, 1280, generator=draws), torch.randn(100, 384, generator=draws)
    recipe = Recipe(0.01, 0.01, 0.9, 5e-4, "wbce", 0.07, 51)
    single = [replace(evaluator, seed=seed, num_seeds=1) for seed in range(SEEDS)]
    return {
        "five at once": lambda: evaluator.evaluate_set(images, texts, torch.eye(100), recipe),
        "one after the other": lambda: [one.evaluate_set(images, texts, torch.eye(100), recipe) for one in single],
    }
