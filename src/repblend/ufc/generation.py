"""Universal feature compensators: one tensor u per architecture and image index, added to an image of every class.

For teacher f (frozen, evaluation mode), image index k and the real images x_c of the C classes (INFER, as released):

    min over u:  mean over c of CE( f(T(x_c + u)), c )  +  lambda_bn * BN(T(x_c + u) for all c)

T is drawn once per iteration, for all classes; BN is `repblend.ufc.batch_norm`. Adam on u alone, from zero, with a
cosine to zero, no warm-up, and no constraint on u. A teacher in evaluation mode treats images one by one, so several
compensators pass through it together; only their BN statistics have to be kept apart.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from repblend.progress import progress
from repblend.schedules import cosine
from repblend.store import open_tensors, read_metadata, read_tensors, write_tensors
from repblend.streams import stream
from repblend.ufc.batch_norm import MeasuredLayers
from repblend.ufc.data import Normalisation
from repblend.ufc.initial import InitialImages
from repblend.ufc.objective import Losses, Objective
from repblend.ufc.params import Generation
from repblend.ufc.transforms import DRAWS, Transform

EPS = 1e-8
CURVES = ("cross_entropy", "bn", "loss")


@dataclass(frozen=True)
class Compensators:
    """The compensators of one architecture."""

    values: Tensor
    """(K, G, 3, H, W) float32, in normalised space: image index, group of classes (one group unless
    `classes_per_compensator` cuts the classes)."""
    curves: dict[str, Tensor]
    """`cross_entropy`, `bn` and `loss`, each (K, G, iterations) float32, measured before the iteration's step."""
    classes_per_compensator: int

    def write(self, path: Path) -> None:
        """Write them as safetensors."""
        write_tensors(path, {"compensators": self.values, **self.curves},
                      {"classes_per_compensator": self.classes_per_compensator})

    @classmethod
    def read(cls, path: Path) -> "Compensators":
        """Read what `write` wrote.

        Raises:
            ValueError: the file is missing or damaged.
        """
        tensors, metadata = read_tensors(path)
        return cls(tensors.pop("compensators"), tensors, metadata["classes_per_compensator"])

    def of_class(self, image: int, label: int) -> Tensor:
        """Return the compensator that is added to image index `image` of a class, (3, H, W)."""
        return self.values[image, label // self.classes_per_compensator]


def generate(teacher: nn.Module, architecture: str, initial: InitialImages, normalisation: Normalisation,
             recipe: Generation, seed: int, checkpoint: Path, work: str, device: str = "cpu") -> Compensators:
    """Make the compensators of one teacher for every image index of `initial`.

    Args:
        teacher: in evaluation mode, without gradients.
        architecture: its name; names its random streams and its skipped layers.
        checkpoint: a folder with one file per batch of compensators, finished or under way; resumed from if of this
            work, the caller removes it.
        work: identifies the parameters, inputs and sources; checkpoints of other work are not resumed.

    Raises:
        ValueError: a loss is not finite (the checkpoint before stays), or `skipped_layers` names a layer that is not.
    """
    layers = MeasuredLayers(teacher, recipe.skipped_layers.get(architecture, []))
    objective = Objective(teacher, layers, recipe.lambda_bn, recipe.first_layer_weight)
    shared_by = recipe.classes_per_compensator or initial.num_classes
    groups = [range(start, min(start + shared_by, initial.num_classes))
              for start in range(0, initial.num_classes, shared_by)]
    batches = [range(start, min(start + recipe.compensators_at_once, initial.num_per_class))
               for start in range(0, initial.num_per_class, recipe.compensators_at_once)]
    columns = []
    for number, classes in enumerate(groups):
        tasks = [_Task(architecture, images, classes, number) for images in batches]
        done = [_optimise(task, objective, _Source(initial, task, normalisation, recipe, seed, device), recipe,
                          checkpoint / f"{task}.safetensors", work) for task in tasks]
        columns.append({name: torch.cat([part[name] for part in done]) for name in ("kept", *CURVES)})
    joined = {name: torch.stack([column[name] for column in columns], dim=1) for name in ("kept", *CURVES)}
    return Compensators(joined.pop("kept"), joined, shared_by)


class _Task(NamedTuple):
    """Compensators that are optimised together: some image indices, one group of classes."""

    architecture: str
    images: range
    classes: range
    group: int

    def __str__(self) -> str:
        return f"{self.architecture}-{self.images.start:04d}-{self.group:04d}"


class _Source:
    """Transformed images of a task, and the draws that transform them."""

    def __init__(self, initial: InitialImages, task: _Task, normalisation: Normalisation, recipe: Generation,
                 seed: int, device: str) -> None:
        self._initial, self._task, self._normalisation, self._seed = initial, task, normalisation, seed
        self._recipe, self.device, self.image_size = recipe, device, initial.image_size
        self.labels = torch.arange(task.classes.start, task.classes.stop, device=device)
        fits = recipe.images_at_once is None
        self._all = self._read(slice(0, len(task.classes))) if fits else None

    def _read(self, classes: slice) -> Tensor:
        """Return normalised images of a slice of the task's classes, (K, C', 3, H, W)."""
        start, stop, _ = classes.indices(len(self._task.classes))
        first = self._task.classes.start
        pixels = torch.stack([self._initial.read(image, slice(first + start, first + stop))
                              for image in self._task.images])
        return self._normalisation.normalise(pixels.to(self.device))

    def draw(self, iteration: int) -> list[Transform]:
        """Draw T for every compensator; the draws of one do not depend on which others it is batched with."""
        task = self._task
        return [DRAWS[self._recipe.transform](self.image_size, self._recipe.max_shift, stream(
            self._seed, "ufc", "transform", task.architecture, image, task.group, iteration)) for image in task.images]

    def gradient(self, objective: Objective, compensators: Tensor, iteration: int) -> tuple[Losses, Tensor]:
        """Return the losses of an iteration, (K,) each, and the gradient of `compensators` (K, 3, H, W)."""
        transforms = self.draw(iteration)
        leaf = compensators.detach().requires_grad_()
        transformed = _apply(transforms, leaf[:, None])
        if self._all is not None:
            losses, pull = objective.gradient(_apply(transforms, self._all), transformed, self.labels)
        else:
            at_once = max(1, self._recipe.images_at_once // len(compensators))
            losses, pull = objective.gradient_in_chunks(lambda chunk: _apply(transforms, self._read(chunk)),
                                                        transformed.detach(), self.labels, at_once)
        return losses, torch.autograd.grad(transformed, leaf, pull)[0]


def _apply(transforms: list[Transform], images: Tensor) -> Tensor:
    return torch.stack([transform(own) for transform, own in zip(transforms, images, strict=True)])


def _optimise(task: _Task, objective: Objective, source: _Source, recipe: Generation, checkpoint: Path,
              work: str) -> dict[str, Tensor]:
    """Run all iterations of a task, or those that a checkpoint lacks; return the kept compensators and the curves."""
    state = _State.resume(checkpoint, work, source.device) or _State.begin(task, source, recipe)
    for iteration in progress(range(state.iteration, recipe.iterations), f"compensators {task}", start=state.iteration,
                              total=recipe.iterations):
        losses, gradient = source.gradient(objective, state.compensators, iteration)
        state.record(losses, iteration, task, recipe)
        state.step(gradient, recipe.lr * cosine(iteration, recipe.iterations), recipe.betas)
        if state.iteration % recipe.checkpoint_every == 0 or state.iteration == recipe.iterations:
            state.save(checkpoint, work)
    return {name: state.tensors[name].cpu() for name in CURVES} | {
        "kept": (state.compensators if recipe.iterate == "last" else state.tensors["kept"]).cpu()}


class _State:
    """Everything that an iteration changes. Adam is written out: its memory is two tensors, and all of it is here."""

    def __init__(self, tensors: dict[str, Tensor], iteration: int) -> None:
        self.tensors, self.iteration = tensors, iteration

    @property
    def compensators(self) -> Tensor:
        return self.tensors["compensators"]

    @classmethod
    def begin(cls, task: _Task, source: _Source, recipe: Generation) -> "_State":
        """Return zero compensators."""
        num, size = len(task.images), source.image_size
        images = {name: torch.zeros(num, 3, size, size) for name in ("compensators", "first", "second", "kept")}
        curves = {name: torch.zeros(num, recipe.iterations) for name in CURVES}
        tensors = images | {"lowest": torch.full((num,), torch.finfo(torch.float32).max)}
        return cls({name: tensor.to(source.device) for name, tensor in tensors.items()} | curves, 0)

    @classmethod
    def resume(cls, path: Path, work: str, device: str) -> "_State | None":
        """Return what `save` wrote of this work, if anything."""
        if not path.is_file():
            return None
        with open_tensors(path) as file:
            metadata = read_metadata(file)
            if metadata["work"] != work:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return cls({name: tensor if name in CURVES else tensor.to(device) for name, tensor in tensors.items()},
                   metadata["iteration"])

    def save(self, path: Path, work: str) -> None:
        write_tensors(path, self.tensors, {"work": work, "iteration": self.iteration})

    def record(self, losses: Losses, iteration: int, task: _Task, recipe: Generation) -> None:
        """Note the losses, and keep what they were measured at if the recipe says so."""
        if not torch.isfinite(losses.total).all():
            raise ValueError(f"compensators {task}, iteration {iteration}: the loss is not finite; lower generation.lr")
        for name, values in zip(CURVES, losses, strict=True):
            self.tensors[name][:, iteration] = values.cpu()
        better = losses.total < self.tensors["lowest"] if recipe.iterate == "best" else torch.ones_like(
            losses.total, dtype=torch.bool)
        self.tensors["lowest"] = torch.where(better, losses.total, self.tensors["lowest"])
        self.tensors["kept"] = torch.where(better[:, None, None, None], self.compensators, self.tensors["kept"])

    def step(self, gradient: Tensor, lr: float, betas: list[float]) -> None:
        """One step of Adam, elementwise, so that batched compensators do not know of one another."""
        self.iteration += 1
        first, second = self.tensors["first"], self.tensors["second"]
        first.lerp_(gradient, 1 - betas[0])
        second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        scale = second.sqrt().div_(math.sqrt(1 - betas[1] ** self.iteration)).add_(EPS)
        self.tensors["compensators"] = torch.addcdiv(
            self.compensators, first, scale, value=-lr / (1 - betas[0] ** self.iteration))

