"""Universal feature compensators: one tensor u per architecture and image index, added to an image of every class.

For teacher f (frozen, evaluation mode), image index k and the real images x_c of the C classes (INFER, as released):

    min over u:  mean over c of CE( f(T(x_c + u)), c )  +  lambda_bn * BN(T(x_c + u) for all c)

T is drawn once per iteration, for all classes; BN is `repblend.ufc.batch_norm`. Adam on u alone, from zero, with a
cosine to zero, no warm-up, and no constraint on u. A teacher in evaluation mode treats images one by one, so several
compensators pass through it together; only their BN statistics have to be kept apart.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from repblend.ufc.data import Normalisation
from repblend.ufc.initial import InitialImages
from repblend.ufc.params import Generation


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
        raise NotImplementedError

    @classmethod
    def read(cls, path: Path) -> "Compensators":
        """Read what `write` wrote.

        Raises:
            ValueError: the file is missing or damaged.
        """
        raise NotImplementedError

    def of_classes(self, image: int, num_classes: int) -> Tensor:
        """Return the compensator of image index `image` for every class, (num_classes, 3, H, W)."""
        raise NotImplementedError


def generate(teacher: nn.Module, architecture: str, initial: InitialImages, normalisation: Normalisation,
             recipe: Generation, seed: int, checkpoint: Path, work: str, device: str = "cpu") -> Compensators:
    """Make the compensators of one teacher for every image index of `initial`.

    Args:
        teacher: in evaluation mode, without gradients.
        architecture: its name; names its random streams and its skipped layers.
        checkpoint: a folder with one file per finished group of compensators and one for the group under way; resumed
            from if of this work, the caller removes it.
        work: identifies the parameters, inputs and sources; checkpoints of other work are not resumed.

    Raises:
        ValueError: a loss is not finite (the checkpoint before stays), or `skipped_layers` names a layer that is not.
    """
    raise NotImplementedError
