"""Replays of the released unimodal code (UFC): compensators and their integration, students, budgets and schedules.

See `paper/METHOD.md`, section 12. The recorded networks are blocks of 3x3 convolution, BatchNorm and ReLU, a mean over
space, and a linear layer.
"""

import io
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from repblend.parity.fixture import Fixture
from repblend.schedules import cosine
from repblend.ufc.data import LabelledImages, Normalisation
from repblend.ufc.generation import CompensatorState
from repblend.ufc.integration import encode, num_real_images, to_bytes, to_pixels
from repblend.ufc.objective import MeasuredLayers, Objective
from repblend.ufc.params import Generation, Validation
from repblend.ufc.training import Training, accuracy
from repblend.ufc.transforms import DrawnViews, Mix, Resample, Shift, Transform, see
from repblend.ufc.validation import Lesson, distillation_loss, optimiser_of, static_labels

SKIPPED = {"cifar": {2: [1]}}
"""Script -> teacher -> layers that it leaves out: the second one of the third teacher, EfficientNet."""


class RecordedNetwork(nn.Module):
    """A network of a recording, by the released names of its modules."""

    def __init__(self, widths: list[int], strides: list[int], num_classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv2d(before, width, 3, stride, 1, bias=False), "bn": nn.BatchNorm2d(width)})
            for before, width, stride in zip([3, *widths], widths, strides, strict=False))
        self.fc = nn.Linear(widths[-1], num_classes)

    @classmethod
    def of(cls, fixture: Fixture, name: str) -> "RecordedNetwork":
        """Return a recorded network in evaluation mode."""
        widths, strides = (fixture.tensor(f"{name}_{sizes}").tolist() for sizes in ("widths", "strides"))
        network = cls(widths, strides, len(fixture.tensor(f"{name}_fc.bias"))).to(fixture.precision).eval()
        network.load_state_dict({key: fixture.tensor(f"{name}_{key}") if f"{name}_{key}" in fixture else value
                                 for key, value in network.state_dict().items()})
        return network

    def forward(self, images: Tensor) -> Tensor:
        for block in self.blocks:
            images = block["bn"](block["conv"](images)).relu()  # type: ignore[index]
        return self.fc(images.mean((2, 3)))


class RecordedNormalisation(Normalisation):
    """Normalised in float32 and then cast to the recording's precision, as its inputs were."""

    dtype = torch.float32

    @classmethod
    def of(cls, fixture: Fixture, prefix: str = "") -> "RecordedNormalisation":
        mean, std = (fixture.tensor(f"cfg_{prefix}{name}").tolist() for name in ("mean", "std"))
        made = cls(tuple(mean), tuple(std))
        object.__setattr__(made, "dtype", fixture.precision)
        return made

    def normalise(self, pixels: Tensor) -> Tensor:
        return super().normalise(pixels).to(self.dtype)


# Compensators and their integration.


def replay_generation(fixture: Fixture) -> dict[str, Tensor]:
    """Every slot: the compensator's iterations with the recorded draws, and what is written of it."""
    outputs: dict[str, Tensor] = {}
    num_real, normalisation = fixture.integer("cfg_num_real"), RecordedNormalisation.of(fixture, "clip_")
    for name in fixture.names("slot"):
        if not name.endswith("_pixels") or name.endswith("_jpeg_pixels"):
            continue
        slot = name.removesuffix("pixels")
        real = fixture.tensor("real")[int(slot.removeprefix("slot").removesuffix("_")) % num_real]
        if f"{slot}u" in fixture:
            found = _compensator(fixture, slot, real)
            clipped = normalisation.clip(real + found["u"][-2])
            found |= {"clipped_last": clipped, "pixels": to_pixels(real + found["u"][-2], normalisation)}
        else:
            found = {"pixels": normalisation.denormalise(real).clamp(0, 1)}
        # Bytes of the recorded pixels: where these are whole but for rounding, another last bit is another byte.
        files = [encode(image, "jpeg") for image in to_bytes(fixture.tensor(name), "released")]
        found |= {"bytes": to_bytes(fixture.tensor(name), "released"),
                  "jpeg_sizes": torch.tensor([len(file) for file in files]),
                  "jpeg_pixels": torch.stack([_decoded(file) for file in files])}
        outputs |= {slot + key: value for key, value in found.items()}
    return outputs


def _decoded(file: bytes) -> Tensor:
    with Image.open(io.BytesIO(file)) as picture:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _compensator(fixture: Fixture, slot: str, real: Tensor) -> dict[str, Tensor]:
    teacher, script = fixture.integer(f"{slot}teacher"), fixture.text("cfg_script")
    network = RecordedNetwork.of(fixture, f"net{teacher}").requires_grad_(False)
    recipe = Generation(
        iterations=fixture.integer("cfg_iterations"), lr=fixture.number("cfg_lr"),
        betas=fixture.tensor("cfg_betas").tolist(), lambda_bn=fixture.number("cfg_lambda_bn"),
        first_layer_weight=fixture.number("cfg_first_bn_multiplier"), transform="shift",
        max_shift=fixture.integer("cfg_max_shift"), compensators_at_once=1, checkpoint_every=1)
    layers = MeasuredLayers(network, SKIPPED.get(script, {}).get(teacher, []))
    objective = Objective(network, layers, recipe.lambda_bn, recipe.first_layer_weight)
    state = CompensatorState(slot, 1, real.shape[-1], recipe, dtype=fixture.precision)
    labels, rows = torch.arange(len(real)), {"u": [state.compensators.detach()[0].clone()]}
    for transform in _transforms(fixture, slot, real.shape[-1]):
        transformed = transform(state.compensators)[:, None]
        losses, pull = objective.gradient(transform(real)[None], transformed, labels)
        seen = transform(real) + transformed.detach()[0]
        with layers.measuring(1) as measured, torch.no_grad():
            row = {"logits": network(seen)}
        row |= {"bn_terms": torch.cat(layers.terms(measured, recipe.first_layer_weight)), "seen": seen,
                "cross_entropy": losses.cross_entropy[0], "loss": losses.total[0]}
        row["grad_u"], = torch.autograd.grad(transformed, state.compensators, pull)
        state.record(losses)
        state.step(row["grad_u"])
        row |= {"grad_u": row["grad_u"][0], "u": state.compensators.detach()[0].clone(),
                "lr": torch.tensor(state.adam.param_groups[0]["lr"], dtype=torch.float64)}
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    seen_first = rows.pop("seen")[0]
    return {name: torch.stack(values) for name, values in rows.items()} | {"seen_first": seen_first}


def _transforms(fixture: Fixture, slot: str, size: int) -> Iterator[Transform]:
    shifts = fixture.tensor(f"{slot}shift").tolist()
    if f"{slot}box" not in fixture:
        return (Shift(*shift) for shift in shifts)
    boxes, flips = (fixture.tensor(f"{slot}{name}").tolist() for name in ("box", "flip"))
    return (Resample.of_box(box, size, flip, *shift) for box, flip, shift in zip(boxes, flips, shifts, strict=True))


def is_generated(name: str) -> bool:
    """Whether an array of a recorded generation is an output."""
    return name.startswith("slot") and not name.endswith(("_teacher", "_image", "_shift", "_box", "_flip"))


def generation_tolerance(fixture: Fixture, name: str) -> float:
    """Adam's first steps divide by the size of a gradient, which float32 knows less well."""
    if name.endswith(("_bytes", "_jpeg_pixels", "_jpeg_sizes")):
        return 0.0
    if fixture.precision == torch.float64:
        return 1e-9
    if fixture.text("cfg_script") == "imagenet":
        return 1e-4
    return {"u": 2e-3, "grad_u": 1e-3}.get(name.partition("_")[2], 1e-5)


# Students.


def replay_training(fixture: Fixture) -> dict[str, Tensor]:
    """Train the recorded student on the recorded draws, with static or dynamic labels."""
    normalisation, num = RecordedNormalisation.of(fixture), fixture.integer("cfg_num_teachers")
    student = RecordedNetwork.of(fixture, "student").train()
    teachers = [RecordedNetwork.of(fixture, f"net{number}").requires_grad_(False) for number in range(num)]
    images = LabelledImages(fixture.tensor("images_uint8"), fixture.tensor("labels"),
                            fixture.integer("cfg_num_classes"))
    recipe, padding = _recipe(fixture), fixture.integer("cfg_crop_padding")
    outputs = {"static_labels": static_labels(teachers, images, normalisation, recipe.batch_size)}
    signal: Any = outputs["static_labels"] if fixture.text("cfg_labels") == "static" else teachers
    lesson = Lesson(images.images, signal, normalisation, recipe)
    optimiser = optimiser_of(student, recipe)
    training, epochs, scores = Training(student, optimiser, Path(), ""), fixture.integer("cfg_epochs"), {}
    flat = partial(_flat, fixture.texts("student_param_names"))
    after, rates = [], []
    for epoch in range(epochs):
        rates.append(training.set_rate(recipe.lr, epoch, epochs))
        for batch in (name.removesuffix("rows") for name in fixture.names(f"e{epoch}_b") if name.endswith("_rows")):
            rows, offsets = fixture.tensor(f"{batch}rows"), fixture.tensor(f"{batch}crop_top_left")
            views = DrawnViews(offsets[:, 0], offsets[:, 1], fixture.tensor(f"{batch}flip"))
            inputs, labels = lesson.mixed(see(fixture.tensor("images_uint8")[rows], views, padding), rows, Mix(
                fixture.number(f"{batch}mix_lam"), fixture.tensor(f"{batch}mix_partners")))
            found = student(inputs)
            loss = training.step(distillation_loss(found, labels, recipe.temperature))
            named = {"loss": loss, "logits": found.detach(), "target": (labels / recipe.temperature).softmax(1),
                     "inputs_first_two": inputs[:2], "params_after": flat(dict(student.named_parameters())),
                     "grad": flat({name: value.grad for name, value in student.named_parameters()}),
                     "teacher_logits": torch.stack([teacher(inputs) for teacher in teachers])}
            outputs |= {batch + name: value for name, value in named.items()}
        after.append(flat(dict(student.named_parameters())))
        if epoch % recipe.score_every == 0 or epoch == epochs - 1:
            scores[epoch] = accuracy(student, fixture.tensor("test_images_uint8"), fixture.tensor("test_labels"),
                                     normalisation)
    outputs |= {f"final_{name}": value for name, value in student.state_dict().items()}
    accuracies = torch.tensor(list(scores.values()), dtype=torch.float64)
    return outputs | {"epoch_lr": torch.tensor(rates, dtype=torch.float64), "params_after_epoch": torch.stack(after),
                      "eval_epochs": torch.tensor(list(scores)), "eval_accuracy": accuracies,
                      "best_accuracy": accuracies.max()}


def _recipe(fixture: Fixture) -> Validation:
    epochs = fixture.integer("cfg_epochs")
    return Validation.model_validate({
        "labels": [fixture.text("cfg_labels")], "students": ["recorded"],
        "epochs": {"static": epochs, "dynamic": epochs}, "batch_size": fixture.integer("cfg_batch_size"),
        "lr": fixture.number("cfg_lr"), "weight_decay": fixture.number("cfg_weight_decay"),
        "temperature": fixture.number("cfg_temperature"), "mixup_alpha": fixture.number("cfg_mixup_alpha"),
        "augmentation": {"crop_padding": fixture.integer("cfg_crop_padding"), "flip": 0.5}, "score_every": 10,
        "num_seeds": 1})


def _flat(names: list[str], tensors: dict[str, Any]) -> Tensor:
    return torch.cat([tensors[name].detach().flatten() for name in names])


def is_trained(name: str) -> bool:
    """Whether an array of a recorded student is an output."""
    draws = ("_rows", "_crop_top_left", "_flip", "_mix_lam", "_mix_partners")
    outputs = ("epoch_lr", "params_after", "final_", "eval_", "best_", "static_labels")
    return name.startswith(outputs) or (re.match(r"e\d+_b\d+_", name) is not None and not name.endswith(draws))


def training_tolerance(fixture: Fixture, name: str) -> float:
    """At the published temperature a loss of 1e-3 is a difference of numbers near 2, which float32 knows less well."""
    if fixture.precision == torch.float64:
        return 1e-9
    return 5e-3 if name.endswith("_loss") else 1e-5


# Budgets, and courses of the learning rate.


def replay_schedules(fixture: Fixture) -> dict[str, Tensor]:
    """How many real images and slots every budget has, and the rates of generation and of students."""
    columns = (fixture.tensor(f"budget_{name}").tolist() for name in ("ipc", "num_classes", "num_teachers"))
    num_real = torch.tensor([num_real_images(*row) for row in zip(*columns, strict=True)])
    outputs = {"budget_num_real": num_real, "budget_num_slots": num_real * (fixture.tensor("budget_num_teachers") + 1)}
    for name in fixture.names():
        if name.endswith("_lr") and not name.endswith("_base_lr"):
            base, num = f"{name.removesuffix('lr')}base_lr", len(fixture.tensor(name))
            rate = fixture.number(base) if base in fixture else STUDENT_LR
            outputs[name] = torch.tensor([rate * cosine(step, num) for step in range(num)], dtype=torch.float64)
    return outputs


STUDENT_LR = 1e-3
"""Of AdamW in the released scripts, whatever their option says."""


def is_scheduled(name: str) -> bool:
    """Whether an array of recorded budgets and schedules is an output."""
    return name in ("budget_num_real", "budget_num_slots") or (name.endswith("_lr") and not name.endswith("_base_lr"))


def schedule_tolerance(fixture: Fixture, name: str) -> float:
    """Whole numbers are exact."""
    return 0.0 if name.startswith("budget") else 1e-12
