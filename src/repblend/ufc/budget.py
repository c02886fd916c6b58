"""Budget accounting and indexing of UFC (INFER, ICLR 2025, as released).

C classes, M architectures, a budget of ipc images per class. n0 real images of every class are stored and M*n0
compensators for all classes together, n0 = floor(ipc / (M/C + 1)), so that n0*C + M*n0 <= ipc*C. Adding every
compensator to its images gives n0*(M+1) images per class to train on: slot j < n0 is real image j as it is, slot
j >= n0 is real image j mod n0 with the compensator of architecture floor(j/n0), counted from 1.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Slot(NamedTuple):
    """One training image of a class."""

    number: int
    """j, from 0."""
    architecture: int | None
    """Which teacher's compensator is added, from 0; None for a real image as it is."""
    image: int
    """k: which of the class's stored real images."""


@dataclass(frozen=True)
class Budget:
    """What a budget allows.

    Raises:
        ValueError: a number is not positive, or the budget does not allow one real image per class.
    """

    ipc: int
    num_classes: int
    num_architectures: int

    def __post_init__(self) -> None:
        if min(self.ipc, self.num_classes, self.num_architectures) < 1:
            raise ValueError(f"{self}: expected positive numbers")
        if self.num_real < 1:
            raise ValueError(f"budget {self.ipc}: with {self.num_architectures} compensators shared by "
                             f"{self.num_classes} classes not one image per class fits; take a larger budget or fewer "
                             "architectures")

    @property
    def num_real(self) -> int:
        """n0: stored real images per class. In whole numbers: floor(ipc * C / (M + C))."""
        return self.ipc * self.num_classes // (self.num_architectures + self.num_classes)

    @property
    def num_slots(self) -> int:
        """Training images per class, n0 * (M + 1)."""
        return self.num_real * (self.num_architectures + 1)

    @property
    def num_compensators(self) -> int:
        """M * n0, for all classes together."""
        return self.num_architectures * self.num_real

    @property
    def num_stored(self) -> int:
        """Image-sized tensors that the budget counts: real images and compensators."""
        return self.num_real * self.num_classes + self.num_compensators

    @property
    def num_allowed(self) -> int:
        """Image-sized tensors that the budget allows, ipc * C."""
        return self.ipc * self.num_classes

    def slots(self) -> list[Slot]:
        """Return the training images of a class, in the order of their numbers."""
        return [self.slot(number) for number in range(self.num_slots)]

    def slot(self, number: int) -> Slot:
        """Return what slot `number`, from 0 to `num_slots` - 1, is made of."""
        architecture, image = divmod(number, self.num_real)
        return Slot(number, architecture - 1 if architecture else None, image)


@dataclass(frozen=True)
class StoredBytes:
    """What a set takes, counted in the two ways that there are: its parts, and the files of the integrated images."""

    real_images: int
    """n0 real images per class, 8 bits per channel."""
    compensators: int
    """M * n0 compensators as they are learned, 32 bits per channel: the budget counts each of them as one image."""
    integrated: int
    """The files of all integrated images, which is what the release stores."""
    static_labels: int
    """One label (C logits) for every integrated image; dynamic labels store nothing and cost teacher passes instead."""


def stored_bytes(budget: Budget, image_size: int, integrated: int, num_groups: int = 1,
                 bytes_per_float: int = 4) -> StoredBytes:
    """Count what a set takes.

    Args:
        image_size: height and width in pixels; images have three channels.
        integrated: bytes of the files of the integrated images.
        num_groups: groups of classes that have compensators of their own; the budget counts one group.
        bytes_per_float: of a compensator's values and of a label's logits.
    """
    values, classes = 3 * image_size * image_size, budget.num_classes
    compensators = budget.num_compensators * num_groups * values * bytes_per_float
    labels = budget.num_slots * classes * classes * bytes_per_float
    return StoredBytes(budget.num_real * classes * values, compensators, integrated, labels)
