"""A few real steps of each kind of a unimodal profile's work; see `repblend.rehearsal`.

Steps are counted by the stages' own loops: teachers and students get one batch of random images, so that an epoch is a
step; compensators are those of one batch of image indices.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from repblend.costs import Counts
from repblend.progress import ONLOOKERS
from repblend.rehearsal import Clock, Enough, Step, main
from repblend.ufc.data import NORMALISATIONS, NUM_CLASSES, LabelledImages, Splits, write_image_files
from repblend.ufc.generation import generate
from repblend.ufc.networks import build
from repblend.ufc.params import UfcParams
from repblend.ufc.training import accuracy, logits, train_teacher
from repblend.ufc.validation import hard_labels, train_student

AT_ONCE = 500
"""Images that are labelled or scored at once, as `logits` does by default."""
BYTES = 4
Task = tuple[Step, Callable[[], object]]
"""What a step is, and what takes them."""


def rehearse(kind: str, params: UfcParams, counts: Counts | None, clock: Clock, folder: Path) -> Step:
    """As `repblend.rehearsal.rehearse`."""
    what, _, name = kind.partition(", ")
    step, run = {"image of a teacher's step": _teacher, "image of a compensator's step": _compensator,
                 "image of a student's step": _student, "image scored": _scored,
                 "image labelled": _labelled}[what](name, params, clock, folder)
    clock.start()
    with contextlib.suppress(Enough), _ticking(clock):
        run()
    return step


@contextlib.contextmanager
def _ticking(clock: Clock) -> Iterator[None]:
    ONLOOKERS.append(clock.tick)
    try:
        yield
    finally:
        ONLOOKERS.remove(clock.tick)


def _teacher(name: str, params: UfcParams, clock: Clock, folder: Path) -> Task:
    images, recipe = _images(params.teachers.batch_size, params), params.teachers
    recipe = recipe.model_copy(update={"epochs": clock.num_steps + 1, "checkpoint_every": clock.num_steps + 1})
    few = images.select(torch.arange(2))
    return (Step(f"teacher {name}: batches of {len(images)}", len(images)),
            partial(train_teacher, name, Splits(images, few, few), NORMALISATIONS[params.data.name], recipe,
                    params.seed, folder / "teacher.safetensors", "rehearsal", params.compute.device))


def _compensator(name: str, params: UfcParams, clock: Clock, folder: Path) -> Task:
    recipe, images = params.generation, _images(NUM_CLASSES[params.data.name], params)
    pixels = images.images[torch.arange(len(images))]
    initial = write_image_files(folder / "initial", [{"images": pixels}] * recipe.compensators_at_once)
    every = recipe.checkpoint_every
    recipe = recipe.model_copy(update={"iterations": clock.num_steps + 1, "checkpoint_every": clock.num_steps + 1})
    rows = len(images) * recipe.compensators_at_once
    memory = 5 * BYTES * recipe.compensators_at_once * 3 * params.data.image_size ** 2  # its own, Adam's, the kept one
    return (Step(f"generate {name}: {recipe.compensators_at_once} x {len(images)} images", rows, memory / every),
            partial(generate, _network(name, params), name, initial, NORMALISATIONS[params.data.name], recipe,
                    params.seed, folder / "checkpoint", "rehearsal", params.compute.device))


def _student(name: str, params: UfcParams, clock: Clock, folder: Path) -> Task:
    images, recipe = _images(params.validation.batch_size, params), params.validation
    steps, few = clock.num_steps + 1, images.select(torch.arange(2))
    recipe = recipe.model_copy(update={"checkpoint_every": steps, "score_every": steps})
    return (Step(f"validate {name}: batches of {len(images)}", len(images)),
            partial(train_student, name, images, hard_labels(images.labels, images.num_classes),
                    Splits(images, few, few), NORMALISATIONS[params.data.name], recipe, steps, params.seed, 0,
                    folder / "student.safetensors", "rehearsal", params.compute.device))


def _scored(name: str, params: UfcParams, clock: Clock, folder: Path) -> Task:
    images, network = _images(AT_ONCE, params), _network(name, params)

    def run() -> None:
        while True:
            accuracy(network, images.images, images.labels, NORMALISATIONS[params.data.name], params.compute.device)
            clock.tick()

    return Step(f"validate {name}: {AT_ONCE} images scored at once", AT_ONCE), run


def _labelled(_: str, params: UfcParams, clock: Clock, folder: Path) -> Task:
    images, names = _images(AT_ONCE, params).images, params.teachers.architectures
    teachers = [_network(name, params) for name in names]

    def run() -> None:
        while True:
            for teacher in teachers:
                logits(teacher, images, NORMALISATIONS[params.data.name], AT_ONCE, params.compute.device)
            clock.tick()

    return Step(f"label: {AT_ONCE} images by {len(teachers)} teachers", AT_ONCE), run


def _images(num: int, params: UfcParams) -> LabelledImages:
    """Random images, as many of every class as there can be."""
    draws, size, classes = torch.Generator().manual_seed(0), params.data.image_size, NUM_CLASSES[params.data.name]
    pixels = torch.randint(256, (num, 3, size, size), generator=draws, dtype=torch.uint8)
    return LabelledImages(pixels, torch.arange(num) % classes, classes)


def _network(name: str, params: UfcParams) -> nn.Module:
    """A network with random weights, in evaluation mode and without gradients."""
    network = build(name, NUM_CLASSES[params.data.name], params.data.image_size, torch.Generator().manual_seed(0))
    return network.to(params.compute.device).eval().requires_grad_(False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], rehearse, UfcParams))
