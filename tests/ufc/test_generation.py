"""Compensators: against a plain loop with torch's own Adam, batched and one by one, in chunks, and across a stop."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from repblend.tensors import read_tensors
from repblend.ufc import generation as module
from repblend.ufc.data import NORMALISATIONS, InitialImages, write_initial_images
from repblend.ufc.generation import Compensators, generate
from repblend.ufc.objective import MeasuredLayers, Objective
from repblend.ufc.params import Generation
from repblend.ufc.transforms import DRAWS
from tests.ufc.small import generation, labelled, network
from tests.ufc.test_batch_norm import twin

NORMALISATION = NORMALISATIONS["cifar10"]
LOOSE = {"rtol": 1e-3, "atol": 2e-3}


@pytest.fixture
def initial(tmp_path: Path) -> InitialImages:
    return write_initial_images(tmp_path / "initial", labelled(6), range(3), seed=1)


def made(initial: InitialImages, folder: Path, **changes: object) -> Compensators:
    return generate(network(dtype=torch.float32), "toy", initial, NORMALISATION, generation(**changes), 7,
                    folder, "work")


def by_definition(initial: InitialImages, recipe: Generation, image: int, iterate: str) -> tuple[Tensor, list[float]]:
    """One compensator, in float64: torch's Adam and cosine, the loss as it reads, T applied to x + u."""
    net = network()
    real = NORMALISATION.normalise(initial.read(image)).double()
    u = torch.zeros(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([u], lr=recipe.lr, betas=(0.5, 0.9), eps=1e-8)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, recipe.iterations)
    seen, losses = [], []
    for iteration in range(recipe.iterations):
        draw = DRAWS[recipe.transform](8, recipe.max_shift,
                                       module.stream(7, "ufc", "transform", "toy", image, 0, iteration))
        inputs = draw(real + u)
        loss = F.cross_entropy(net(inputs), torch.arange(4)) + recipe.lambda_bn * twin(net, inputs, 10.0)
        seen.append(u.detach().clone())
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    kept = {"last-evaluated": seen[-1], "last": u.detach(), "best": seen[losses.index(min(losses))]}[iterate]
    return kept[0].float(), losses


@pytest.mark.parametrize("transform", ["shift", "crop-flip-shift"])
@pytest.mark.parametrize("iterate", ["last-evaluated", "last", "best"])
def test_compensators_are_those_of_the_definition(initial: InitialImages, tmp_path: Path, iterate: str,
                                                  transform: str) -> None:
    recipe = generation(iterate=iterate, transform=transform, iterations=8)
    found = made(initial, tmp_path / "work", iterate=iterate, transform=transform, iterations=8)
    assert found.values.shape == (3, 3, 8, 8)
    for image in range(3):
        expected, losses = by_definition(initial, recipe, image, iterate)
        torch.testing.assert_close(found.values[image], expected, **LOOSE)
        torch.testing.assert_close(found.curves["loss"][image], torch.tensor(losses), **LOOSE)


def test_batching_changes_no_draw_and_no_result(initial: InitialImages, tmp_path: Path) -> None:
    alone = made(initial, tmp_path / "alone", compensators_at_once=1)
    together = made(initial, tmp_path / "together", compensators_at_once=3)
    torch.testing.assert_close(alone.values, together.values, **LOOSE)


@pytest.mark.parametrize("images_at_once", [2, 6, 7])
def test_chunks_change_no_result(initial: InitialImages, tmp_path: Path, images_at_once: int) -> None:
    whole = made(initial, tmp_path / "whole")
    chunked = made(initial, tmp_path / "chunked", images_at_once=images_at_once)
    torch.testing.assert_close(whole.values, chunked.values, **LOOSE)
    torch.testing.assert_close(whole.curves["bn"], chunked.curves["bn"], **LOOSE)


@pytest.mark.parametrize("classes_at_once", [1, 3, 4, 9])
def test_the_gradient_in_chunks_is_exact(classes_at_once: int) -> None:
    objective = Objective(network(), MeasuredLayers(network()), 0.5, 10.0)
    objective = Objective(objective.teacher, MeasuredLayers(objective.teacher), 0.5, 10.0)
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(3, 4, 3, 8, 8, generator=generator, dtype=torch.float64)
    compensators = torch.randn(3, 1, 3, 8, 8, generator=generator, dtype=torch.float64)
    losses, gradient = objective.gradient(images, compensators, torch.arange(4))
    in_chunks = objective.gradient_in_chunks(lambda chunk: images[:, chunk], compensators, torch.arange(4),
                                             classes_at_once)
    torch.testing.assert_close(in_chunks[0], losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(in_chunks[1], gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("stop_after", [1, 5, 6, 11])
def test_a_stopped_run_resumes_with_the_same_bytes(initial: InitialImages, tmp_path: Path, stop_after: int,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    expected = made(initial, tmp_path / "uninterrupted", iterate="best")
    calls = iter(range(1000))
    step = module.CompensatorState.step

    def stopping(self: object, *arguments: object) -> None:
        if next(calls) == stop_after:
            raise KeyboardInterrupt
        step(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module.CompensatorState, "step", stopping)
        made(initial, tmp_path / "stopped", iterate="best")
    resumed = made(initial, tmp_path / "stopped", iterate="best")
    expected.write(tmp_path / "a.safetensors")
    resumed.write(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert torch.equal(Compensators.read(tmp_path / "a.safetensors").values, expected.values)


def test_checkpoints_of_other_work_are_not_resumed(initial: InitialImages, tmp_path: Path) -> None:
    made(initial, tmp_path / "work", lr=1.0)
    teacher = network(dtype=torch.float32)
    found = generate(teacher, "toy", initial, NORMALISATION, generation(), 7, tmp_path / "work", "other work")
    assert torch.equal(found.values, made(initial, tmp_path / "fresh").values)


def test_a_loss_that_is_not_finite_keeps_the_checkpoint_before(initial: InitialImages, tmp_path: Path) -> None:
    made(initial, tmp_path / "work", iterations=2)
    checkpoint = next((tmp_path / "work").iterdir())
    before = checkpoint.read_bytes()
    teacher = network(dtype=torch.float32)
    teacher[-1].bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"toy-0000-0000, iteration 0: the loss is not finite"):
        generate(teacher, "toy", initial, NORMALISATION, generation(), 7, tmp_path / "work", "other work")
    assert checkpoint.read_bytes() == before and read_tensors(checkpoint)[1]["iteration"] == 2
