"""Teachers and students: augmentation against loops, the loss against its definition, and stops that leave no trace."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repblend.encoders.hub import HUB
from repblend.streams import stream
from repblend.tensors import read_tensors
from repblend.ufc.data import NORMALISATIONS, Splits
from repblend.ufc.networks import NETWORKS, build
from repblend.ufc.records import OneStudent
from repblend.ufc.training import (
    READY_MADE,
    Training,
    accuracy,
    read_teacher,
    run_epochs,
    torchvision_teacher,
    train_teacher,
    write_teacher,
)
from repblend.ufc.transforms import DrawnViews, draw_mix, draw_views, see
from repblend.ufc.validation import (
    Lesson,
    chosen,
    distillation_loss,
    equal_epochs,
    hard_labels,
    static_labels,
    train_student,
)
from tests.ufc.small import labelled, network, teachers, validation

NORMALISATION = NORMALISATIONS["cifar10"]
SPLITS = Splits(labelled(8, seed=1), labelled(4, seed=2), labelled(5, seed=3))


def test_crops_and_flips_are_those_of_a_loop() -> None:
    images = torch.randint(0, 256, (5, 3, 6, 7), dtype=torch.uint8, generator=stream(0, "tests"))
    flipped = torch.tensor([0, 1, 1, 0, 1]).bool()
    views = DrawnViews(torch.tensor([0, 1, 2, 3, 4]), torch.tensor([4, 0, 2, 1, 3]), flipped)
    for number, found in enumerate(see(images, views, 2)):
        padded = np.pad(images[number].numpy(), ((0, 0), (2, 2), (2, 2)))
        top, left = int(views.top[number]), int(views.left[number])
        crop = padded[:, top:top + 6, left:left + 7]
        assert (found.numpy() == (crop[:, :, ::-1] if views.flipped[number] else crop)).all()


def test_views_are_drawn_from_their_whole_range() -> None:
    views = draw_views(2000, 4, 0.5, stream(0, "tests"))
    assert set(views.top.tolist()) == set(views.left.tolist()) == set(range(9))
    assert 0.45 < views.flipped.double().mean() < 0.55
    assert not draw_views(50, 0, 0.0, stream(0, "tests")).flipped.any()


def test_mixed_shares_have_the_moments_of_their_distribution() -> None:
    shares = torch.tensor([draw_mix(2, 0.8, stream(0, "tests", number)).share for number in range(4000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.01)  # of Beta(a, a): 1 / (4 (2a + 1))


def test_loss_is_the_divergence_of_softened_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 4, generator=generator, dtype=torch.float64) * 20 for _ in range(2))
    expected = 0.0
    for row in range(5):
        weights = [[math.exp(value / 30) for value in logits[row].tolist()] for logits in (teacher, student)]
        p, q = ([weight / sum(own) for weight in own] for own in weights)
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 5
    assert distillation_loss(student, teacher, 30.0).item() == pytest.approx(expected, rel=1e-10)


def test_static_labels_are_the_mean_logits_and_are_mixed_with_the_images() -> None:
    pair = [network(seed, dtype=torch.float32) for seed in (0, 1)]
    stored = static_labels(pair, SPLITS.train, NORMALISATION, batch_size=7)
    inputs = NORMALISATION.normalise(SPLITS.train.images)
    torch.testing.assert_close(stored, (pair[0](inputs) + pair[1](inputs)) / 2)
    rows = torch.tensor([3, 9, 20, 1])
    lesson = Lesson(SPLITS.train.images, stored, NORMALISATION, validation())
    mixed_inputs, mixed_labels = lesson.batch(rows, stream(4, "tests"))
    draws = stream(4, "tests")
    views, mix = draw_views(4, 1, 0.5, draws), draw_mix(4, 0.8, draws)
    seen = NORMALISATION.normalise(see(SPLITS.train.images[rows], views, 1))
    for position, partner in enumerate(mix.partners.tolist()):
        torch.testing.assert_close(mixed_inputs[position],
                                   mix.share * seen[position] + (1 - mix.share) * seen[partner])
        torch.testing.assert_close(mixed_labels[position],
                                   mix.share * stored[rows[position]] + (1 - mix.share) * stored[rows[partner]])


def test_dynamic_labels_are_the_teachers_on_what_the_student_sees() -> None:
    pair = [network(seed, dtype=torch.float32) for seed in (0, 1)]
    lesson = Lesson(SPLITS.train.images, pair, NORMALISATION, validation())
    inputs, labels = lesson.batch(torch.arange(6), stream(4, "tests"))
    torch.testing.assert_close(labels, (pair[0](inputs) + pair[1](inputs)) / 2)
    static = Lesson(SPLITS.train.images, torch.zeros(32, 4), NORMALISATION, validation())
    assert torch.equal(inputs, static.batch(torch.arange(6), stream(4, "tests"))[0])


def test_a_teachers_training_is_that_of_a_plain_loop(tmp_path: Path) -> None:
    recipe = teachers(epochs=3)
    found, curves = train_teacher("resnet-small", SPLITS, NORMALISATION, recipe, 5, tmp_path / "checkpoint", "work")
    plain = build("resnet-small", 4, 8, stream(5, "ufc", "teacher", "resnet-small", "initial"))
    sgd = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 3)
    for epoch in range(3):
        draws = stream(5, "ufc", "teacher", "resnet-small", "epoch", epoch)
        torch.randint(2**63 - 1, (), generator=draws)  # seeds torch's own draws
        for rows in torch.randperm(32, generator=draws).split(16):
            images = see(SPLITS.train.images[rows], draw_views(16, 1, 0.5, draws), 1)
            sgd.zero_grad()
            F.cross_entropy(plain(NORMALISATION.normalise(images)), SPLITS.train.labels[rows]).backward()
            sgd.step()
        schedule.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value)
    assert curves["epoch"] == [0, 1, 2] and not found.training


def score(folder: Path, signal: Tensor | list[nn.Module]) -> OneStudent:
    return train_student("convnet-small", SPLITS.train, signal, SPLITS, NORMALISATION, validation(), 4, 5, 1,
                         folder / "student.safetensors", "work")[0]


def test_a_teacher_may_learn_from_images_that_other_deviations_scale(tmp_path: Path) -> None:
    other = (0.2470, 0.2435, 0.2616)
    own, plain = teachers(epochs=1, std=[*other]), teachers(epochs=1)
    found, expected, without = (
        train_teacher("convnet-small", SPLITS, constants, recipe, 5, tmp_path / str(number), "work")[0].state_dict()
        for number, (constants, recipe) in enumerate((
            (NORMALISATION, own), (replace(NORMALISATION, std=other), plain), (NORMALISATION, plain))))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any(not torch.equal(found[name], without[name]) for name in expected)


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_stopped_teacher_goes_on_with_the_same_bytes(tmp_path: Path, stop_after: int,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (SPLITS, NORMALISATION, teachers(epochs=3), 5)
    monkeypatch.setitem(NETWORKS, "dropping", lambda classes, size: nn.Sequential(  # draws of torch's own as well
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.Flatten(), nn.Linear(8 * 36, classes)))
    expected = train_teacher("dropping", *arguments, tmp_path / "whole", "work")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Training, "step", stopping(Training.step, stop_after))
        train_teacher("dropping", *arguments, tmp_path / "stopped", "work")
    resumed = train_teacher("dropping", *arguments, tmp_path / "stopped", "work")
    assert resumed[1] == expected[1] and len(resumed[1]["loss"]) == 3
    assert (tmp_path / "stopped").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_a_stopped_student_goes_on_with_the_same_bytes(tmp_path: Path, stop_after: int,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    pair = [network(seed, dtype=torch.float32) for seed in (0, 1)]
    expected = score(tmp_path / "whole", pair)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Training, "step", stopping(Training.step, stop_after))
        score(tmp_path / "stopped", pair)
    assert score(tmp_path / "stopped", pair) == expected
    files = [(tmp_path / name / "student.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert files[0] == files[1]


def stopping(step: object, after: int) -> object:
    calls = iter(range(1000))

    def stopped(*arguments: object) -> Tensor:
        if next(calls) == after:
            raise KeyboardInterrupt
        return step(*arguments)

    return stopped


def test_a_student_learns_and_its_best_is_chosen_on_held_out_images(tmp_path: Path) -> None:
    hard = 10.0 * F.one_hot(SPLITS.train.labels, 4).float()
    recipe = validation(temperature=1.0, lr=0.02, score_every=3)
    found, student = train_student("convnet-small", SPLITS.train, hard, SPLITS, NORMALISATION, recipe, 20, 5, 0,
                                   tmp_path / "student", "work")
    assert found.curves.epoch == [0, 3, 6, 9, 12, 15, 18, 19]
    assert found.last > 70 and not student.training


def test_accuracies_are_last_best_on_validation_and_best_on_test() -> None:
    curves = {"epoch": [0, 1, 2, 3], "loss": [1.0] * 4, "val_accuracy": [10.0, 50.0, 50.0, 40.0],
              "test_accuracy": [90.0, 30.0, 60.0, 20.0]}
    assert chosen(curves).to_json() == {"curves": curves, "last": 20.0, "best": 30.0, "best_on_test": 90.0}


@pytest.mark.parametrize("num_classes", [10, 100, 1000])
def test_own_classes_as_labels_stay_so_in_mixtures_whatever_the_number_of_classes(num_classes: int) -> None:
    logits = hard_labels(torch.tensor([0, 1]), num_classes)
    assert float(logits[0].softmax(0)[0]) > 0.99
    assert 0.96 < float(logits.mean(0).softmax(0)[:2].sum()) < 0.98
    assert float(hard_labels(torch.tensor([3]), 10).max()) == 10.0


def test_equal_epochs_show_as_many_images() -> None:
    assert equal_epochs(80, 10, 50) == 400
    assert equal_epochs(3, 100, 10) == 1


def test_accuracy_counts_and_refuses_nan() -> None:
    pixels = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    nn.init.zeros_(fixed[1].weight)
    fixed[1].bias.data = torch.tensor([0.0, 1.0, 1.0, 0.0])  # a tie: the first wins
    assert accuracy(fixed, pixels, torch.tensor([1, 2, 1]), NORMALISATION) == pytest.approx(200 / 3)
    fixed[1].bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="hold NaN"):
        accuracy(fixed, pixels, torch.tensor([1, 2, 1]), NORMALISATION)


def test_a_teacher_comes_back_from_its_file_and_another_does_not(tmp_path: Path) -> None:
    made = build("convnet-small", 4, 8, stream(0, "tests"))
    write_teacher(tmp_path / "teacher", "convnet-small", made)
    back = read_teacher(tmp_path / "teacher", "convnet-small", 4, 8)
    assert not back.training and not any(parameter.requires_grad for parameter in back.parameters())
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in back.state_dict().items())
    with pytest.raises(ValueError, match="expected a resnet-small, found a convnet-small"):
        read_teacher(tmp_path / "teacher", "resnet-small", 4, 8)
    with pytest.raises(ValueError, match="with 5 classes"):
        read_teacher(tmp_path / "teacher", "convnet-small", 5, 8)


def test_torchvisions_weights_are_looked_for_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    file = tmp_path / "own" / "mobilenet_v2-b0353104.pth"
    with pytest.raises(ValueError, match=r"own/mobilenet_v2-b0353104\.pth: no such file\. Download https://"):
        torchvision_teacher("torchvision-mobilenet_v2", file.parent)
    with pytest.raises(ValueError, match="only torchvision's"):
        torchvision_teacher("resnet18", file.parent)
    weights = build("torchvision-mobilenet_v2", 1000, 224).state_dict()
    for folder in (tmp_path / "torch" / "checkpoints", file.parent):
        folder.mkdir(parents=True)
        torch.save(weights, folder / file.name)
        with pytest.raises(ValueError, match=rf"{folder}/.*does not begin with b0353104; download https://"):
            torchvision_teacher("torchvision-mobilenet_v2", file.parent)
    monkeypatch.setattr("repblend.ufc.training.sha256", lambda path: "b0353104ff")
    found = torchvision_teacher("torchvision-mobilenet_v2", file.parent)
    assert not found.training and torch.equal(found.classifier[1].weight, weights["classifier.1.weight"])
    assert READY_MADE.is_relative_to(HUB)  # which containers and clean checkouts are shown


def test_a_diverging_teacher_stops_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    train_teacher("convnet-small", SPLITS, NORMALISATION, teachers(epochs=1), 5, tmp_path / "file", "work")
    before = (tmp_path / "file").read_bytes()
    with pytest.raises(ValueError, match=r"teacher convnet-small, epoch \d: the loss is (nan|inf)"):
        train_teacher("convnet-small", SPLITS, NORMALISATION, teachers(lr=1e30), 5, tmp_path / "file", "other")
    assert (tmp_path / "file").read_bytes() == before and read_tensors(tmp_path / "file")[1]["epoch"] == 1


def test_a_checkpoint_holds_the_optimisers_memory(tmp_path: Path) -> None:
    made = nn.Linear(2, 2)
    adam = torch.optim.AdamW(made.parameters())
    made(torch.ones(1, 2)).sum().backward()
    adam.step()
    training = Training(made, adam, tmp_path / "file", "work", 3, {"loss": [1.0]})
    training.save()
    other = nn.Linear(2, 2)
    back = Training(other, torch.optim.AdamW(other.parameters()), tmp_path / "file", "work")
    back.resume()
    assert (back.epoch, back.curves) == (3, {"loss": [1.0]})
    for mine, theirs in zip(back.optimiser.state.values(), adam.state.values(), strict=True):
        assert all(torch.equal(mine[slot], theirs[slot]) for slot in ("step", "exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize(("smallest", "lengths"), [(2, [16, 16]), (1, [16, 16, 1])])
def test_a_last_batch_of_one_image_is_left_out_or_trained_on(smallest: int, lengths: list[int], tmp_path: Path) -> None:
    made, seen = nn.Linear(2, 2), []

    def step(rows: Tensor, draws: torch.Generator) -> Tensor:
        seen.append(len(rows))
        return torch.zeros(())

    training = Training(made, torch.optim.SGD(made.parameters(), 0.1), tmp_path / "file", "work")
    run_epochs(training, 1, 33, validation(batch_size=16), lambda epoch: stream(0, "tests", epoch), step,
               lambda epoch, loss: None, "student", smallest)
    assert seen == lengths
