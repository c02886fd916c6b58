"""Expert training and the store of trajectories."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from repblend.data.image_store import FolderStore
from repblend.data.views import UNLIMITED, CropOfSquare, ViewSource
from repblend.encoders.heads import HeadSpec, apply_head, init_head
from repblend.evaluation.towers import HeadPair
from repblend.experts.training import (
    Descent,
    PairsFromFiles,
    TrainingPairs,
    draw_epoch,
    train_expert,
    with_cached_views,
    with_dropout,
)
from repblend.experts.trajectories import TrajectoryStore, stream_trajectory, write_trajectory
from repblend.matching.student import PerModality, TwoTower

IMAGE, TEXT = HeadSpec(6, 5), HeadSpec(4, 5)
STUDENT = TwoTower(lambda x, flat: apply_head(x, flat, IMAGE), lambda x, flat: apply_head(x, flat, TEXT))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_pairs() -> TrainingPairs:
    draws = generator()
    return TrainingPairs(torch.randn(3, 7, 6, generator=draws), torch.randn(10, 4, generator=draws),
                         torch.tensor([0, 0, 1, 2, 3, 3, 4, 5, 6, 6]))


def some_heads() -> PerModality:
    return PerModality(init_head(IMAGE, generator(1)), init_head(TEXT, generator(2)))


def train(num_epochs: int) -> list:
    batches = [draw for epoch in range(num_epochs) for draw in draw_epoch(10, 3, 4, generator(epoch))]
    return list(train_expert(some_pairs(), some_heads(), iter(batches), STUDENT, 0.1, 0.0, 0.0, 0.07))


def test_an_epoch_shows_every_pair_once_but_for_the_partial_batch() -> None:
    draws = draw_epoch(10, 3, 4, generator())
    shown = torch.cat([draw.pairs for draw in draws]).tolist()
    assert len(draws) == 2 and len(set(shown)) == 8


def test_every_view_is_drawn() -> None:
    draws = draw_epoch(1000, 3, 100, generator())
    assert torch.bincount(torch.cat([draw.views for draw in draws])).tolist() == pytest.approx([333] * 3, abs=60)


def test_a_pair_shows_the_drawn_view_of_its_own_image() -> None:
    pairs = some_pairs()
    draw = draw_epoch(10, 3, 4, generator())[0]
    images, texts = pairs.batch(draw)
    for row, (pair, view) in enumerate(zip(draw.pairs, draw.views, strict=True)):
        assert torch.equal(images[row], pairs.views[view][pairs.image_index[pair]])
        assert torch.equal(texts[row], pairs.texts[pair])


def test_one_step_is_a_plain_gradient_step_on_the_mean_of_both_cross_entropies() -> None:
    draw = draw_epoch(10, 3, 4, generator())[0]
    heads = PerModality(*(value.double().requires_grad_() for value in some_heads()))
    images, texts = (x.double() for x in some_pairs().batch(draw))
    u, w = (F.normalize(x) for x in (STUDENT.image(images, heads.img), STUDENT.text(texts, heads.txt)))
    logits, classes = u @ w.T / 0.07, torch.arange(4)
    loss = (F.cross_entropy(logits, classes) + F.cross_entropy(logits.T, classes)) / 2
    slopes = torch.autograd.grad(loss, heads)
    expected = [value.detach() - 0.1 * slope for value, slope in zip(heads, slopes, strict=True)]
    result, after = next(train_expert(some_pairs(), some_heads(), iter([draw]), STUDENT, 0.1, 0.0, 0.0, 0.07))
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    for ours, truth in zip(after, expected, strict=True):
        torch.testing.assert_close(ours.double(), truth, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_cached", [1, 3, 100])
def test_cached_views_are_those_of_the_last_images(num_cached: int) -> None:
    """Against the definition: look back over the pairs shown until that many other images have passed."""
    owners = torch.arange(6).repeat_interleave(5)
    draws = draw_epoch(30, 50, 4, generator())
    pairs, drawn = (torch.cat([getattr(draw, name) for draw in draws]).tolist() for name in ("pairs", "views"))
    found = torch.cat([draw.views for draw in with_cached_views(draws, owners, num_cached)]).tolist()
    expected: list[int] = []
    for place, pair in enumerate(pairs):
        others, view = set(), drawn[place]
        for earlier in range(place - 1, -1, -1):
            if owners[pairs[earlier]] == owners[pair]:
                view = expected[earlier]
                break
            others.add(int(owners[pairs[earlier]]))
            if len(others) == num_cached:
                break
        expected.append(view)
    assert found == expected and found != drawn
    if num_cached == 100:
        assert len({(int(owners[pair]), view) for pair, view in zip(pairs, found, strict=True)}) == 6


def test_a_step_with_dropout_drops_what_was_drawn() -> None:
    """Against the published layers: linear, GELU, linear, dropout of those units, residual, LayerNorm."""
    heads = HeadPair(HeadSpec(6, 5, dropout=0.3), HeadSpec(4, 5, dropout=0.3))
    (draw,) = with_dropout(draw_epoch(10, 3, 8, generator()), heads.draw_masks, generator(3))
    flats = PerModality(*(value.requires_grad_() for value in some_heads()))

    def head(x: torch.Tensor, flat: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        w1, b1, w2, b2, scale, shift = flat.split([5 * x.shape[1], 5, 25, 5, 5, 5])
        projected = F.linear(x, w1.view(5, -1), b1)
        hidden = F.linear(F.gelu(projected), w2.view(5, 5), b2)
        return F.layer_norm(torch.where(kept, hidden / 0.7, 0.0) + projected, (5,), scale, shift)

    images, texts = some_pairs().batch(draw)
    u, w = F.normalize(head(images, flats.img, draw.masks.img)), F.normalize(head(texts, flats.txt, draw.masks.txt))
    logits, classes = u @ w.T / 0.07, torch.arange(8)
    loss = (F.cross_entropy(logits, classes) + F.cross_entropy(logits.T, classes)) / 2
    slopes = torch.autograd.grad(loss, flats)
    expected = [flat.detach() - 0.1 * slope for flat, slope in zip(flats, slopes, strict=True)]
    result, after = next(train_expert(some_pairs(), some_heads(), iter([draw]), heads.student, 0.1, 0.0, 0.0, 0.07))
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    for ours, truth in zip(after, expected, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-4, atol=1e-5)


def test_dropout_drops_its_share_anew_in_every_batch() -> None:
    heads = HeadPair(HeadSpec(6, 500, dropout=0.3), HeadSpec(4, 500, dropout=0.3))
    first, second = with_dropout(draw_epoch(40, 3, 20, generator()), heads.draw_masks, generator())
    assert first.masks.img.float().mean().item() == pytest.approx(0.7, abs=0.02)
    for one, other in ((first.masks.img, second.masks.img), (first.masks.img, first.masks.txt)):
        assert not torch.equal(one, other)
    plain = HeadPair(HeadSpec(6, 5), HeadSpec(4, 5)).draw_masks(8, generator())
    assert plain == (None, None)


def test_snapshots_are_copies_that_later_steps_leave_alone() -> None:
    steps = train(num_epochs=2)
    assert all(not torch.equal(one.img, other.img)
               for (_, one), (_, other) in itertools.pairwise(steps))


def test_training_lowers_the_loss() -> None:
    losses = [result.loss for result, _ in train(num_epochs=40)]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def write(folder: Path, number: int, count: int = 3) -> list[PerModality]:
    snapshots = [PerModality(torch.full((4,), float(index + 10 * number)), torch.full((2,), -float(index)))
                 for index in range(count)]
    write_trajectory(folder / f"expert-{number:03d}.safetensors", snapshots, {"expert": number})
    return snapshots


def test_any_snapshot_can_be_read_back(tmp_path: Path) -> None:
    written = [write(tmp_path, number) for number in range(2)]
    store = TrajectoryStore(tmp_path)
    assert (len(store), store.num_snapshots, store.metadata(1)["expert"]) == (2, 3, 1)
    for expert in range(2):
        for index in range(3):
            assert all(torch.equal(a, b) for a, b in zip(store.snapshot(expert, index), written[expert][index],
                                                         strict=True))


def test_a_snapshot_is_readable_when_the_bytes_of_others_are_damaged(tmp_path: Path) -> None:
    written = write(tmp_path, 0)
    path = tmp_path / "expert-000.safetensors"
    content = bytearray(path.read_bytes())
    content[-4:] = b"\xff\xff\xff\xff"  # the last tensor's bytes; the first snapshot lies elsewhere
    path.write_bytes(content)
    assert torch.equal(TrajectoryStore(tmp_path).snapshot(0, 0).img, written[0].img)


def test_missing_truncated_and_mixed_trajectories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected expert-\*\.safetensors"):
        TrajectoryStore(tmp_path)
    write(tmp_path, 0)
    write(tmp_path, 1, count=2)
    with pytest.raises(ValueError, match=r"expert-000\.safetensors: 3 snapshots, but another expert has 2"):
        TrajectoryStore(tmp_path)
    path = tmp_path / "expert-001.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"expert-001\.safetensors.*truncated or damaged"):
        TrajectoryStore(tmp_path)


def test_a_trajectory_that_diverged_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        broken = PerModality(torch.tensor([float("nan")]), torch.ones(1))
        write_trajectory(tmp_path / "expert-000.safetensors", [broken], {})
    assert list(tmp_path.iterdir()) == []


def test_a_trajectory_that_is_streamed_has_the_same_bytes(tmp_path: Path) -> None:
    snapshots = [PerModality(torch.randn(7, generator=generator(index)), torch.randn(3, generator=generator(-index)))
                 for index in range(11)]
    metadata = {"expert": 1, "imported": {"img": 'a "name" \\ ü.pt'}}
    write_trajectory(tmp_path / "whole", snapshots, metadata)
    stream_trajectory(tmp_path / "streamed", PerModality(7, 3), 11, iter(snapshots), metadata)
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "whole").read_bytes()
    snapshots[4].txt[1] = float("inf")
    with pytest.raises(ValueError, match="'snapshot-000004/txt' holds NaN or infinity"):
        stream_trajectory(tmp_path / "diverged", PerModality(7, 3), 11, iter(snapshots), metadata)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["streamed", "whole"]


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 5e-4)])
@pytest.mark.parametrize("fused", [False, True])
def test_descent_is_pytorchs_sgd_to_the_bit_without_its_compiler(momentum: float, weight_decay: float,
                                                                 fused: bool) -> None:
    draws = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.linspace(-1, 1, 50 + number).requires_grad_() for number in range(3)] for _ in range(2))
    descent = Descent([ours[:2], ours[2:]], [0.1, 0.3], momentum, weight_decay, fused)
    reference = torch.optim.SGD([{"params": theirs[:2], "lr": 0.1}, {"params": theirs[2:], "lr": 0.3}],
                                momentum=momentum, weight_decay=weight_decay, fused=fused or None)
    for step in range(5):
        if step == 3:
            descent.rates = [rate * 0.1 for rate in descent.rates]
            for group in reference.param_groups:
                group["lr"] *= 0.1
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=draws)
            other.grad = mine.grad.clone()
        descent.step()
        reference.step()
        assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
        assert all(mine.grad is None for mine in ours)


# Images that are read when they are drawn: the views of the cache, for any number of threads, and ever new ones.


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
