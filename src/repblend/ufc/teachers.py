"""Teachers ("squeeze"): the networks that compensators are made with and that label images.

SGD with momentum, cosine, random crops and flips, as in the recipe that the release refers to. Training resumes at an
epoch with the same bytes as without the interruption.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repblend.store import JSON, read_tensors, sha256, write_tensors
from repblend.streams import stream
from repblend.ufc.accuracy import accuracy
from repblend.ufc.augmentation import draw_views, see
from repblend.ufc.data import LabelledImages, Normalisation, Splits
from repblend.ufc.networks import build, drawing_from
from repblend.ufc.params import Teachers
from repblend.ufc.training import Training, mean_loss, run_epochs

WEIGHTS = "IMAGENET1K_V1"
READY_MADE = Path("data/hub/torchvision")
"""In the clone: torchvision's files. Containers and clean checkouts see this folder; torch's own cache they do not."""


@dataclass(frozen=True)
class TrainedTeacher:
    """A teacher in evaluation mode without gradients, and what its training measured."""

    network: nn.Module
    measures: JSON
    """`curves` (`epoch`, `loss`) and `accuracy` (`val`, `test`, in percent)."""


def train_teacher(architecture: str, splits: Splits, normalisation: Normalisation, recipe: Teachers, seed: int,
                  checkpoint: Path, work: str, device: str = "cpu") -> TrainedTeacher:
    """Train one teacher.

    Args:
        checkpoint: a file that is written every `recipe.checkpoint_every` epochs and resumed from if it is of this
            work; removing it afterwards is up to the caller.
        work: identifies the parameters, inputs and sources; a checkpoint of other work is not resumed.

    Raises:
        ValueError: the architecture is unknown, or the loss is not finite (the checkpoint before stays).
    """
    train = splits.train
    network = build(architecture, train.num_classes, train.images.shape[-1],
                    stream(seed, "ufc", "teacher", architecture, "initial")).to(device).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=recipe.lr, momentum=recipe.momentum,
                                weight_decay=recipe.weight_decay)
    training = Training(network, optimiser, checkpoint, work)
    images = train.images.to(device)

    def run_epoch(epoch: int) -> float:
        draws = stream(seed, "ufc", "teacher", architecture, "epoch", epoch)
        with drawing_from(draws):
            return mean_loss([_step(training, images[rows.to(device)], train.labels[rows].to(device), normalisation,
                                    recipe, draws) for rows in _batches(train, recipe.batch_size, draws)])

    run_epochs(training, recipe.epochs, recipe.lr, recipe.checkpoint_every, run_epoch,
               lambda epoch, loss: training.record(epoch=epoch, loss=loss), f"teacher {architecture}")
    network.eval().requires_grad_(False)
    scores = {name: accuracy(network, split.images, split.labels, normalisation, device=device)
              for name, split in (("val", splits.val), ("test", splits.test))}
    return TrainedTeacher(network, {"curves": training.curves, "accuracy": scores})


def _batches(train: LabelledImages, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Cut a new order of the images into batches; a last batch of one image, which has no variance, is left out."""
    batches = torch.randperm(len(train), generator=generator).split(batch_size)
    return [batch for batch in batches if len(batch) > 1]


def _step(training: Training, images: Tensor, labels: Tensor, normalisation: Normalisation, recipe: Teachers,
          draws: torch.Generator) -> Tensor:
    padding = recipe.augmentation.crop_padding
    views = draw_views(len(images), padding, recipe.augmentation.flip, draws)
    loss = F.cross_entropy(training.network(normalisation.normalise(see(images, views, padding))), labels)
    training.optimiser.zero_grad()
    loss.backward()
    training.optimiser.step()
    return loss.detach()


def write_teacher(path: Path, architecture: str, network: nn.Module) -> None:
    """Write a teacher's weights and statistics as safetensors."""
    write_tensors(path, network.state_dict(), {"architecture": architecture})


def read_teacher(path: Path, architecture: str, num_classes: int, image_size: int, device: str = "cpu") -> nn.Module:
    """Return a teacher in evaluation mode, without gradients, from a file that `write_teacher` wrote.

    Raises:
        ValueError: the file is missing or damaged, or holds another architecture.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("architecture") != architecture:
        raise ValueError(f"{path}: expected a {architecture}, found a {metadata.get('architecture')}; train it again")
    network = build(architecture, num_classes, image_size)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path}: its tensors are not those of a {architecture} with {num_classes} classes and images "
                         f"of {image_size} pixels ({error}); train it again") from error
    return network.to(device).eval().requires_grad_(False)


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
    network = build(architecture, len(weights.meta["categories"]), 224)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.to(device).eval().requires_grad_(False)
