"""Images that are read when they are drawn: the views of the cache, for any number of threads, and ever new ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repblend.data.image_store import FolderStore
from repblend.data.views import UNLIMITED, CropOfSquare, ViewSource
from repblend.evaluation.towers import HeadPair
from repblend.experts.from_files import PairsFromFiles
from repblend.experts.training import TrainingPairs, draw_epoch, train_expert

IMAGES, PAIRS, VIEWS, SIZE = 6, 15, 3, 8


@pytest.fixture
def source(tmp_path: Path) -> ViewSource:
    draws = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(draws.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return ViewSource(FolderStore(tmp_path), [f"{number}.png" for number in range(IMAGES)], SIZE,
                      CropOfSquare(SIZE, 0.5, 0.5), seed=0)


def halved(pixels: torch.Tensor) -> torch.Tensor:
    return pixels / 2


def mean_colours(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.mean(-1).flatten(1)  # (B, 3 H)


def pairs_from(source: ViewSource, num_views: int, workers: int = 2) -> PairsFromFiles:
    return PairsFromFiles(source, halved, mean_colours, torch.randn(PAIRS, 5, generator=torch.Generator()),
                          torch.arange(PAIRS) % IMAGES, num_views, workers)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_an_expert_is_the_one_that_is_trained_on_the_cache(source: ViewSource, workers: int) -> None:
    drawn = pairs_from(source, VIEWS, workers)
    cache = torch.stack([mean_colours(halved(torch.stack([source.view(image, view) for image in range(IMAGES)])))
                         for view in range(VIEWS)])
    cached = TrainingPairs(cache, drawn.texts, drawn.image_index)
    heads = HeadPair.of_widths(3 * SIZE, 5, 4)
    initial = heads.initial(torch.Generator().manual_seed(1), torch.Generator().manual_seed(2))
    epochs = [draw_epoch(PAIRS, VIEWS, 4, torch.Generator().manual_seed(seed)) for seed in range(2)]
    trained = [[after for _, after in train_expert(pairs, initial, (draw for epoch in epochs for draw in epoch),
                                                   heads.student, 0.1, 0.0, 0.0, 0.07)]
               for pairs in (drawn, cached)]
    assert len(trained[0]) == 6
    for ours, theirs in zip(*trained, strict=True):
        assert torch.equal(ours.img, theirs.img) and torch.equal(ours.txt, theirs.txt)


def test_fresh_views_never_repeat_and_come_again_from_the_same_draws(source: ViewSource) -> None:
    def shown(workers: int) -> torch.Tensor:
        draws = draw_epoch(3000, UNLIMITED, 100, torch.Generator().manual_seed(0))
        return torch.cat([draw.views for draw in draws]), torch.cat([
            images for _, images, _ in pairs_from(source, UNLIMITED, workers).batches(
                draw._replace(pairs=draw.pairs % PAIRS) for draw in draws[:2])])

    (views, images), (_, again) = shown(1), shown(4)
    assert len(views.unique()) == len(views) == 3000
    assert torch.equal(images, again)
    assert len(images.unique(dim=0)) > 100  # of 6 images, so small that some crops are the same


def test_a_missing_image_is_named(source: ViewSource) -> None:
    (source.store.folder / "4.png").unlink()
    with pytest.raises(ValueError, match=r"4\.png: no such image"):
        list(pairs_from(source, VIEWS).batches(draw_epoch(PAIRS, VIEWS, 5, torch.Generator().manual_seed(0))))


def test_float16_texts_are_widened(source: ViewSource) -> None:
    pairs = pairs_from(source, VIEWS)
    half = PairsFromFiles(source, halved, mean_colours, pairs.texts.half(), pairs.image_index, VIEWS)
    draws = draw_epoch(PAIRS, VIEWS, 5, torch.Generator().manual_seed(0))
    for draw, _, texts in half.batches(draws):
        assert texts.dtype == torch.float32 and torch.equal(texts, pairs.texts.half().float()[draw.pairs])
