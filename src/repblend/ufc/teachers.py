"""Teachers ("squeeze"): the networks that compensators are made with and that label images.

SGD with momentum, cosine, random crops and flips, as in the recipe that the release refers to. Training resumes at an
epoch with the same bytes as without the interruption.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from repblend.store import JSON
from repblend.ufc.data import Normalisation, Splits
from repblend.ufc.params import Teachers


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
    raise NotImplementedError


def write_teacher(path: Path, architecture: str, network: nn.Module) -> None:
    """Write a teacher's weights and statistics as safetensors."""
    raise NotImplementedError


def read_teacher(path: Path, architecture: str, num_classes: int, image_size: int, device: str = "cpu") -> nn.Module:
    """Return a teacher in evaluation mode, without gradients, from a file that `write_teacher` wrote.

    Raises:
        ValueError: the file is missing or damaged, or holds another architecture.
    """
    raise NotImplementedError


def torchvision_teacher(architecture: str, device: str = "cpu") -> nn.Module:
    """Return a torchvision network with its ImageNet weights (`IMAGENET1K_V1`) from torch's own cache on the disk.

    Raises:
        ValueError: the architecture is unknown, or its weights are not on the disk.
    """
    raise NotImplementedError
