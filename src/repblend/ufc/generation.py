"""Universal feature compensators: one tensor u per architecture and image index, added to an image of every class.

For teacher f (frozen, evaluation mode), image index k and the real images x_c of the C classes (INFER,
arXiv 2408.06927; `paper/METHOD.md`, section 12):

    min over u:  mean over c of CE( f(T(x_c + u)), c )  +  lambda_bn * BN(T(x_c + u) for all c)

T is drawn once per iteration, for all classes; BN is `repblend.ufc.objective`. Adam on u alone, from zero, with a
cosine to zero, no warm-up, and no constraint on u. A teacher in evaluation mode treats images one by one, so several
compensators pass through it together; only their BN statistics have to be kept apart.

Shapes: K compensators (image indices), C' classes of a slice of all.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from repblend.progress import progress
from repblend.schedules import cosine
from repblend.streams import stream
from repblend.tensors import read_tensors, write_tensors
from repblend.ufc.data import InitialImages, Normalisation
from repblend.ufc.objective import Losses, MeasuredLayers, Objective
from repblend.ufc.params import Generation
from repblend.ufc.training import read_checkpoint, restore_memory, tensors_of_memory
from repblend.ufc.transforms import DRAWS, Transform

EPS = 1e-8
"""Of Adam."""
CURVES = ("cross_entropy", "bn", "loss")


@dataclass(frozen=True)
class Compensators:
    """The compensators of one architecture."""

    values: Tensor
    """(K, 3, H, W) float32, in normalised space, by image index."""
    curves: dict[str, Tensor]
    """`cross_entropy`, `bn` and `loss`, each (K, iterations) float32, measured before the iteration's step."""
    num_classes: int
    """That share each of them: all."""

    def write(self, path: Path) -> None:
        """Write them as safetensors; tensors have a second dimension there, of one group of classes."""
        tensors = {"compensators": self.values, **self.curves}
        write_tensors(path, {name: values.unsqueeze(1) for name, values in tensors.items()},
                      {"classes_per_compensator": self.num_classes})

    @classmethod
    def read(cls, path: Path) -> "Compensators":
        """Read what `write` wrote; raises `ValueError` if the file is missing or damaged."""
        tensors, metadata = read_tensors(path)
        tensors = {name: values.squeeze(1) for name, values in tensors.items()}
        return cls(tensors.pop("compensators"), tensors, metadata["classes_per_compensator"])


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
        ValueError: a loss is not finite (the checkpoint before stays), or `skipped_layers` names a layer that does not
            exist.
    """
    layers = MeasuredLayers(teacher, recipe.skipped_layers.get(architecture, []))
    objective = Objective(teacher, layers, recipe.lambda_bn, recipe.first_layer_weight)
    starts = range(0, initial.num_per_class, recipe.compensators_at_once)
    batches = [_Batch(architecture, range(start, min(start + starts.step, starts.stop)), initial, normalisation, recipe,
                      seed, device) for start in starts]
    done = [_optimise(batch, objective, checkpoint / f"{batch}.safetensors", work) for batch in batches]
    joined = {name: torch.cat([part[name] for part in done]) for name in ("kept", *CURVES)}
    return Compensators(joined.pop("kept"), joined, initial.num_classes)


@dataclass(frozen=True)
class _Batch:
    """Compensators that are optimised together: those of some image indices."""

    architecture: str
    images: range
    initial: InitialImages
    normalisation: Normalisation
    recipe: Generation
    seed: int
    device: str

    def __str__(self) -> str:
        return f"{self.architecture}-{self.images.start:04d}-0000"

    def read(self, classes: slice) -> Tensor:
        """Return normalised images of a slice of the classes, (K, C', 3, H, W)."""
        pixels = torch.stack([self.initial.read(image, classes) for image in self.images])
        return self.normalisation.normalise(pixels.to(self.device))

    def seen(self, transforms: list[Transform], classes: slice) -> Tensor:
        """Read images of a slice of the classes as the teacher sees them."""
        return _each(transforms, self.read(classes))

    def draw(self, iteration: int) -> list[Transform]:
        """Draw T for every compensator; the draws of one do not depend on which others it is batched with."""
        return [DRAWS[self.recipe.transform](self.initial.image_size, self.recipe.max_shift, stream(
            self.seed, "ufc", "transform", self.architecture, image, 0, iteration)) for image in self.images]


def _each(transforms: list[Transform], images: Tensor) -> Tensor:
    """Transform the images of every compensator, (K, ..., H, W), by its own T."""
    return torch.stack([transform(own) for transform, own in zip(transforms, images, strict=True)])


def _optimise(batch: _Batch, objective: Objective, checkpoint: Path, work: str) -> dict[str, Tensor]:
    """Run all iterations of a batch, or those that a checkpoint lacks; return the kept compensators and the curves."""
    recipe, initial = batch.recipe, batch.initial
    state = CompensatorState(str(batch), len(batch.images), initial.image_size, recipe, batch.device)
    labels = torch.arange(initial.num_classes, device=batch.device)
    images = batch.read(slice(None)) if recipe.images_at_once is None else None
    state.resume(checkpoint, work)
    for iteration in progress(range(state.iteration, recipe.iterations), f"compensators {batch}",
                              start=state.iteration, total=recipe.iterations):
        transforms = batch.draw(iteration)
        transformed = _each(transforms, state.compensators[:, None])  # T(x + u) = T(x) + T(u); (K, 1, 3, H, W)
        if images is not None:
            losses, pull = objective.gradient(_each(transforms, images), transformed, labels)
        else:
            at_once = max(1, (recipe.images_at_once or 1) // len(batch.images))
            losses, pull = objective.gradient_in_chunks(partial(batch.seen, transforms), transformed.detach(), labels,
                                                        at_once)
        gradient, = torch.autograd.grad(transformed, state.compensators, pull)
        state.record(losses)
        state.step(gradient)
        if state.iteration % recipe.checkpoint_every == 0 or state.iteration == recipe.iterations:
            state.save(checkpoint, work)
    kept = state.compensators.detach() if recipe.iterate == "last" else state.tensors["kept"]
    return {name: state.tensors[name] for name in CURVES} | {"kept": kept.cpu()}


class CompensatorState:
    """Everything that an iteration changes: compensators, Adam's memory of them, the kept iterate and the curves."""

    def __init__(self, name: str, num: int, size: int, recipe: Generation, device: str = "cpu",
                 dtype: torch.dtype = torch.float32) -> None:
        """Begin with zero compensators, (num, 3, size, size); `name` is what errors call them."""
        self.name, self.recipe, self.iteration = name, recipe, 0
        self.compensators = torch.zeros(num, 3, size, size, device=device, dtype=dtype, requires_grad=True)
        # One loop over elements, so that batched compensators do not know of one another.
        self.adam = torch.optim.Adam([self.compensators], recipe.lr, (recipe.betas[0], recipe.betas[1]), EPS,
                                     foreach=False)
        self.tensors = {"kept": torch.zeros_like(self.compensators, requires_grad=False),
                        "lowest": torch.full((num,), torch.finfo(torch.float32).max, device=device),
                        **{name: torch.zeros(num, recipe.iterations, dtype=dtype) for name in CURVES}}

    def record(self, losses: Losses) -> None:
        """Note the losses, and keep what they were measured at if the recipe says so."""
        if not torch.isfinite(losses.total).all():
            raise ValueError(f"compensators {self.name}, iteration {self.iteration}: the loss is not finite; lower "
                             "generation.lr")
        for name, values in zip(CURVES, losses, strict=True):
            self.tensors[name][:, self.iteration] = values.cpu()
        lowest, kept = self.tensors["lowest"], self.tensors["kept"]
        better = (losses.total < lowest) | (self.recipe.iterate != "best")
        self.tensors["lowest"] = torch.where(better, losses.total, lowest)
        self.tensors["kept"] = torch.where(better[:, None, None, None], self.compensators.detach(), kept)

    def step(self, gradient: Tensor) -> None:
        """Take one step of Adam, its rate lowered along half a cosine."""
        self.adam.param_groups[0]["lr"] = self.recipe.lr * cosine(self.iteration, self.recipe.iterations)
        self.compensators.grad = gradient
        self.adam.step()
        self.iteration += 1

    def save(self, path: Path, work: str) -> None:
        """Write a checkpoint, atomically."""
        write_tensors(path, self.tensors | {"compensators": self.compensators} | tensors_of_memory(self.adam),
                      {"work": work, "iteration": self.iteration})

    def resume(self, path: Path, work: str) -> None:
        """Go on from the checkpoint, if there is one of this work."""
        if not (found := read_checkpoint(path, work)):
            return
        tensors, metadata = found
        self.iteration = metadata["iteration"]
        with torch.no_grad():
            self.compensators.copy_(tensors["compensators"])
        restore_memory(self.adam, tensors)
        self.tensors = {name: tensors[name].to(values.device) for name, values in self.tensors.items()}
