"""Students: all seeds at once equal one at a time; schedules, batches, divergence; both protocols."""

import math
import statistics

import pytest
import torch

from repblend.data.features import SplitFeatures
from repblend.encoders.heads import HeadSpec
from repblend.evaluation.evaluate import Evaluator
from repblend.evaluation.protocol import (
    HeadPair,
    Scores,
    first_best,
    initial_heads,
    scored_epochs,
    student_batches,
    summarise,
)
from repblend.evaluation.recall import MEAN_RECALL, RECALLS
from repblend.evaluation.student import Recipe, draw_student_batches, published_decay_start, train_students
from repblend.experts.training import TrainingPairs
from repblend.matching.step import PerModality

HEADS = HeadPair(HeadSpec(6, 5), HeadSpec(4, 5))
RECIPE = Recipe(0.05, 0.04, 0.9, 5e-4, "wbce", 0.07, decay_from=3)


def some_set(pairs: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    return (torch.randn(pairs, 6, generator=draws), torch.randn(pairs, 4, generator=draws),
            torch.eye(pairs) + 0.1 * torch.randn(pairs, pairs, generator=draws))


def train(num_seeds: int, batch_size: int, recipe: Recipe = RECIPE, epochs: int = 4) -> PerModality:
    images, texts, targets = some_set()
    batches = student_batches(0, num_seeds, len(texts), epochs, batch_size)
    return train_students(images, texts, targets, initial_heads(0, num_seeds, HEADS), batches, HEADS.student, recipe,
                          lambda *_: None)


@pytest.mark.parametrize("batch_size", [4, 100])
def test_seeds_trained_together_equal_seeds_trained_alone(batch_size: int) -> None:
    images, texts, targets = some_set()
    together = train(3, batch_size)
    initial, batches = initial_heads(0, 3, HEADS), student_batches(0, 3, len(texts), 4, batch_size)
    for seed in range(3):
        one = PerModality(*(value[seed:seed + 1] for value in initial))
        alone = train_students(images, texts, targets, one, batches[seed:seed + 1], HEADS.student, RECIPE,
                               lambda *_: None)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[seed], b[0], rtol=1e-4, atol=1e-6)


def test_more_seeds_do_not_change_the_first_ones() -> None:
    for few, many in zip(initial_heads(0, 2, HEADS), initial_heads(0, 5, HEADS), strict=True):
        assert torch.equal(few, many[:2])
    assert torch.equal(student_batches(0, 2, 9, 3, 4), student_batches(0, 5, 9, 3, 4)[:2])


def test_the_rate_falls_to_a_tenth_from_the_middle_on() -> None:
    """After the change the steps are those of a tenth of the rate: compare with a recipe that never changes."""
    assert [published_decay_start(epochs) for epochs in (100, 10, 20)] == [51, 6, 11]
    plain = Recipe(0.05, 0.04, 0.0, 0.0, "mse", 0.07, decay_from=0)
    tenth = Recipe(0.005, 0.004, 0.0, 0.0, "mse", 0.07, decay_from=None)
    for a, b in zip(train(1, 4, plain), train(1, 4, tenth), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_batches_of_an_epoch_are_firsts_of_their_own_reshuffles() -> None:
    batches = draw_student_batches(10, 30, 4, torch.Generator().manual_seed(0))
    assert batches.shape == (31, math.ceil(10 / 4), 4)
    assert all(len(set(row.tolist())) == 4 for row in batches.flatten(0, 1))
    overlaps = [len(set(a.tolist()) & set(b.tolist())) for a, b, _ in batches]
    assert max(overlaps) > 0  # not a partition
    assert torch.equal(draw_student_batches(3, 2, 4, torch.Generator()), torch.arange(3).expand(3, 1, 3))


def test_a_student_that_diverges_is_named() -> None:
    with pytest.raises(ValueError, match=r"student \d, epoch \d+: the loss is .*Lower the set's learning rates"):
        train(2, 100, Recipe(1e30, 1e30, 0.9, 0.0, "infonce", 0.07, None), epochs=20)


def test_students_learn_a_set_that_can_be_learned() -> None:
    draws = torch.Generator().manual_seed(1)
    latent = torch.randn(40, 4, generator=draws)
    images, texts = latent @ torch.randn(4, 6, generator=draws), latent @ torch.randn(4, 4, generator=draws)
    split = SplitFeatures(images[20:], texts[20:], torch.arange(20))
    evaluator = Evaluator({"val": split, "test": split}, HEADS, 0, 3, 60, 6, 128)
    scores = evaluator.evaluate_set(images[:20], texts[:20], torch.eye(20),
                                    Recipe(0.05, 0.05, 0.9, 0.0, "infonce", 0.07, None))
    curve = torch.tensor(scores.to_json()["curves"]["test_mean_recall"]).mean(0)
    assert curve[-1] > curve[0] + 15


def test_full_data_students_see_every_pair_and_view_and_learn() -> None:
    draws = torch.Generator().manual_seed(2)
    latent = torch.randn(40, 4, generator=draws)
    images, texts = latent @ torch.randn(4, 6, generator=draws), latent @ torch.randn(4, 4, generator=draws)
    split = SplitFeatures(images[30:], texts[30:], torch.arange(10))
    pairs = TrainingPairs(images[None, :30].repeat(2, 1, 1), texts[:30], torch.arange(30))
    evaluator = Evaluator({"val": split, "test": split}, HEADS, 0, 2, 20, 2, 10)
    scores = evaluator.evaluate_full_data(pairs, Recipe(0.05, 0.05, 0.9, 0.0, "infonce", 0.07, None))
    curves = scores.to_json()["curves"]
    assert all(seed[-1] > 20 for seed in curves["val_mean_recall"])


def test_scored_epochs_are_the_published_ones() -> None:
    assert scored_epochs(100, 5) == [0, 20, 40, 60, 80, 100]
    assert scored_epochs(10, 5) == [0, 2, 4, 6, 8, 10]
    assert scored_epochs(11, 5) == [0, 2, 4, 6, 8, 10, 11]
    assert scored_epochs(3, 5) == [0, 1, 2, 3]


def recalls(value: float) -> dict[str, float]:
    return dict.fromkeys((*RECALLS, MEAN_RECALL), value)


def test_protocols_choose_on_their_own_split_and_report_test() -> None:
    scores = Scores(HEADS.student, {}, [0, 20, 40])
    scores.recalls = {"val": [[recalls(1), recalls(5)], [recalls(3), recalls(5)], [recalls(2), recalls(4)]],
                      "test": [[recalls(10), recalls(20)], [recalls(11), recalls(21)], [recalls(19), recalls(25)]]}
    scores.splits = {"val": None, "test": None}
    found = scores.to_json()["protocols"]
    held_out = [(seed["epoch"], seed[MEAN_RECALL]) for seed in found["held-out"]["seeds"]]
    faithful = [(seed["epoch"], seed[MEAN_RECALL]) for seed in found["faithful"]["seeds"]]
    assert held_out == [(20, 11), (0, 20)]  # equally good on validation: the earlier
    assert faithful == [(40, 19), (40, 25)]
    assert found["held-out"]["mean"][MEAN_RECALL] == 15.5
    assert found["held-out"]["std"][MEAN_RECALL] == pytest.approx(statistics.stdev([11, 20]))
    assert (found["held-out"]["selected_on"], found["faithful"]["selected_on"]) == ("val", "test")
    assert scores.mean_of_best("val") == 4.0


def test_one_seed_has_no_deviation() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        summarise([recalls(1)])


def test_first_best_prefers_the_first_of_equals() -> None:
    assert first_best([1.0, 3.0, 3.0, 2.0]) == 1
