"""Training of a classifier, epoch by epoch, that can stop anywhere and go on with the same bytes; and of teachers.

A checkpoint holds the network (weights and statistics), the optimiser's memory, the curves and the number of epochs
done. Draws are named by their epoch, so no generator's state is in it. All draws are on the CPU; the work is done where
the images are, for a whole batch at once.

Teachers ("squeeze") are the networks that compensators are made with and that label images: SGD with momentum, cosine,
random crops and flips, the recipe that the release refers to.

Shapes: N images, B of a batch, C classes, H and W pixels.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repblend.progress import progress
from repblend.schedules import cosine
from repblend.store import JSON, sha256
from repblend.streams import stream
from repblend.tensors import read_tensors, write_tensors
from repblend.ufc.data import ImageFiles, Normalisation, Splits
from repblend.ufc.networks import build, drawing_from
from repblend.ufc.params import Teachers, Validation
from repblend.ufc.transforms import augmented

WEIGHTS = "IMAGENET1K_V1"
READY_MADE = Path("data/hub/torchvision")
"""In the clone: torchvision's files. Containers and clean checkouts see this folder; torch's own cache they do not."""


@dataclass
class Training:
    """A network under training."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    checkpoint: Path
    """A file; `save` writes it, `resume` reads it."""
    work: str
    """Identifies parameters, inputs and sources; a checkpoint of other work is not resumed."""
    epoch: int = 0
    """Epochs done."""
    curves: dict[str, list[float]] = field(default_factory=dict)

    def record(self, **values: float) -> None:
        """Append to curves."""
        for name, value in values.items():
            self.curves.setdefault(name, []).append(value)

    def set_rate(self, start: float, epoch: int, num_epochs: int) -> float:
        """Lower the learning rate along half a cosine, epoch by epoch; return it."""
        rate = start * cosine(epoch, num_epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def step(self, loss: Tensor) -> Tensor:
        """Take one step of the optimiser; return the loss without its graph."""
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def save(self) -> None:
        """Write the checkpoint, atomically."""
        weights = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        write_tensors(self.checkpoint, weights | tensors_of_memory(self.optimiser),
                      {"work": self.work, "epoch": self.epoch, "curves": self.curves})

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of this work."""
        if not (found := read_checkpoint(self.checkpoint, self.work)):
            return
        tensors, metadata = found
        self.network.load_state_dict({name.removeprefix("network/"): tensor for name, tensor in tensors.items()
                                      if name.startswith("network/")})
        restore_memory(self.optimiser, tensors)
        self.epoch, self.curves = metadata["epoch"], metadata["curves"]


def read_checkpoint(path: Path, work: str) -> tuple[dict[str, Tensor], JSON] | None:
    """Return the tensors and the metadata of a checkpoint; None if there is none of this work."""
    found = read_tensors(path) if path.is_file() else None
    return found if found and found[1]["work"] == work else None


def tensors_of_memory(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimiser remembers of its parameters: `optimiser/<number of the parameter>/<name>` -> tensor."""
    return {f"optimiser/{number}/{name}": tensor for number, memory in optimiser.state_dict()["state"].items()
            for name, tensor in memory.items()}


def restore_memory(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser what `tensors_of_memory` returned; other tensors among them are left out."""
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        if path.startswith("optimiser/"):
            _, number, name = path.split("/")
            state.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})


def run_epochs(training: Training, num_epochs: int, num_images: int, recipe: Teachers | Validation,
               draws_of: Callable[[int], torch.Generator], step: Callable[[Tensor, torch.Generator], Tensor],
               after_epoch: Callable[[int, float], None], label: str, smallest: int = 2) -> None:
    """Run the epochs that are left, with the learning rate lowered along half a cosine, epoch by epoch.

    Args:
        recipe: has the learning rate, the batch size, and how often a checkpoint is written.
        draws_of: returns the random stream of an epoch, given its number from 0.
        step: trains on the images at these positions, (B,) int64, with draws of a stream, and returns the loss.
        after_epoch: measures after an epoch, given its number and its mean loss.
        smallest: images of a last batch that is not left out; one image has no variance in a layer without space.

    Raises:
        ValueError: a loss is not finite; the checkpoint before stays.
    """
    training.resume()
    for epoch in progress(range(training.epoch, num_epochs), label, "epoch", training.epoch, num_epochs):
        training.set_rate(recipe.lr, epoch, num_epochs)
        draws = draws_of(epoch)
        with drawing_from(draws):
            batches = torch.randperm(num_images, generator=draws).split(recipe.batch_size)
            losses = [step(rows, draws) for rows in batches if len(rows) >= smallest]
        loss = torch.stack(losses).double().mean().item()
        if not math.isfinite(loss):
            raise ValueError(f"{label}, epoch {epoch}: the loss is {loss}; lower the learning rate")
        after_epoch(epoch, loss)
        training.epoch = epoch + 1
        if training.epoch % recipe.checkpoint_every == 0 or training.epoch == num_epochs:
            training.save()


@torch.no_grad()
def logits(network: nn.Module, images: Tensor | ImageFiles, normalisation: Normalisation, batch_size: int = 500,
           device: str = "cpu") -> Tensor:
    """Return a network's logits, (N, C) float32 on the CPU, in evaluation mode; its mode is left as it was.

    Args:
        images: (N, 3, H, W) uint8, or floats between 0 and 1.
    """
    training = network.training
    network.eval()
    parts = [network(normalisation.normalise(part.to(device))).cpu() for part in images.split(batch_size)]
    network.train(training)
    return torch.cat(parts)


def accuracy(network: nn.Module, images: Tensor | ImageFiles, labels: Tensor, normalisation: Normalisation,
             device: str = "cpu") -> float:
    """Return the share of images (N, 3, H, W) whose highest logit is their class's, in percent; ties go to the first;
    raises `ValueError` if a logit is NaN.
    """
    found = logits(network, images, normalisation, device=device)
    if found.isnan().any():
        raise ValueError("a network's logits hold NaN: its training diverged; lower the learning rate")
    return 100 * (found.argmax(1) == labels).double().mean().item()


def held_out_accuracies(network: nn.Module, splits: Splits, normalisation: Normalisation, device: str = "cpu",
                        ) -> dict[str, float]:
    """Return a network's accuracy on `val` and `test`, in percent; raises as `accuracy`."""
    return {name: accuracy(network, split.images, split.labels, normalisation, device)
            for name, split in (("val", splits.val), ("test", splits.test))}


# Teachers: trained here, read back, or torchvision's.


def train_teacher(architecture: str, splits: Splits, normalisation: Normalisation, recipe: Teachers, seed: int,
                  checkpoint: Path, work: str, device: str = "cpu") -> tuple[nn.Module, dict[str, list[float]]]:
    """Train one teacher; return it in evaluation mode without gradients, and its `loss` by `epoch`.

    Args:
        checkpoint: a file that is written every `recipe.checkpoint_every` epochs and resumed from if it is of this
            work; removing it afterwards is up to the caller.
        work: identifies the parameters, inputs and sources; a checkpoint of other work is not resumed.

    Raises:
        ValueError: the architecture is unknown, or the loss is not finite (the checkpoint before stays).
    """
    train, purpose = splits.train, ("ufc", "teacher", architecture)
    if recipe.std:
        red, green, blue = recipe.std
        normalisation = replace(normalisation, std=(red, green, blue))
    network = build(architecture, train.num_classes, train.images.shape[-1], stream(seed, *purpose, "initial"))
    network = network.to(device).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=recipe.lr, momentum=recipe.momentum,
                                weight_decay=recipe.weight_decay)
    training = Training(network, optimiser, checkpoint, work)
    images = train.images.to(device) if isinstance(train.images, Tensor) else train.images

    def step(rows: Tensor, draws: torch.Generator) -> Tensor:
        seen = augmented(images[rows.to(device)], recipe.augmentation, draws)
        return training.step(F.cross_entropy(network(normalisation.normalise(seen)), train.labels[rows].to(device)))

    run_epochs(training, recipe.epochs, len(train), recipe, partial(stream, seed, *purpose, "epoch"), step,
               lambda epoch, loss: training.record(epoch=epoch, loss=loss), f"teacher {architecture}")
    return network.eval().requires_grad_(False), training.curves


def write_teacher(path: Path, architecture: str, network: nn.Module) -> None:
    """Write a teacher's weights and statistics as safetensors."""
    write_tensors(path, network.state_dict(), {"architecture": architecture})


def read_teacher(path: Path, architecture: str, num_classes: int, image_size: int, device: str = "cpu") -> nn.Module:
    """Return a teacher in evaluation mode, without gradients, from a file that `write_teacher` wrote; raises
    `ValueError` if the file is missing or damaged, or holds another architecture.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("architecture") != architecture:
        raise ValueError(f"{path}: expected a {architecture}, found a {metadata.get('architecture')}; train it again")
    return with_weights(architecture, num_classes, image_size, tensors, path).to(device)


def with_weights(architecture: str, num_classes: int, image_size: int, weights: Mapping[str, Tensor], path: Path,
                 ) -> nn.Module:
    """Return a network in evaluation mode, without gradients; raises `ValueError` if the weights are not its own."""
    network = build(architecture, num_classes, image_size)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path}: its tensors are not those of a {architecture} with {num_classes} classes and images "
                         f"of {image_size} pixels ({error}); train it, or fetch it, again") from error
    return network.eval().requires_grad_(False)


def torchvision_teacher(architecture: str, folder: Path, device: str = "cpu") -> nn.Module:
    """Return a torchvision network with its ImageNet weights (`IMAGENET1K_V1`), in evaluation mode.

    Args:
        folder: where the file of the weights is looked for, before torch's own cache.

    Raises:
        ValueError: the architecture is unknown, or its weights are not on the disk or damaged.
    """
    name = architecture.removeprefix("torchvision-")
    if name == architecture:
        raise ValueError(f"teacher '{architecture}': only torchvision's networks have weights to load; train it, or "
                         f"take torchvision-resnet18, torchvision-mobilenet_v2 or torchvision-efficientnet_b0")
    import torchvision.models  # seconds, and teachers that are trained need none of it

    weights = torchvision.models.get_model_weights(name)[WEIGHTS]
    path, own_cache = (place / weights.url.rsplit("/", 1)[1] for place in (
        folder, Path(torch.hub.get_dir()) / "checkpoints"))
    if not path.is_file() and not own_cache.is_file():
        raise ValueError(f"{path}: no such file. Download {weights.url} there")
    path = path if path.is_file() else own_cache
    expected = path.stem.rpartition("-")[2]  # torchvision's names end with how the SHA-256 begins
    if not sha256(path).startswith(expected):
        raise ValueError(f"{path}: its SHA-256 does not begin with {expected}; download {weights.url} again")
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    return with_weights(architecture, len(weights.meta["categories"]), 224, tensors, path).to(device)
