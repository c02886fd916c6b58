"""One inner step of a student: the matched model, the synthetic data it sees, and its loss (parity/README.md 1.1).

Shapes: N pairs, B pairs of a batch, S inner steps, P parameters of one modality, D embedding width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from repblend.matching.losses import Loss, cosine_logits
from repblend.matching.perturbation import Perturbation
from repblend.matching.similarity import Similarity

Device = torch.device | str
Tower = Callable[..., Tensor]
"""(inputs (B, ...), flat parameters (P,)) -> embeddings (B, D), twice differentiable in both. A head with dropout takes
the units to keep (B, D) as a third argument; without it, nothing is dropped."""


class PerModality(NamedTuple):
    """One tensor for the image side and one for the text side."""

    img: Tensor
    txt: Tensor


def as_it_is(inputs: Tensor, flat: Tensor) -> Tensor:
    """A tower that does nothing."""
    return inputs


class Masks(NamedTuple):
    """The head units that dropout keeps in one training step, (B, D) bool; None for a side without dropout."""

    img: Tensor | None = None
    txt: Tensor | None = None

    def to(self, device: Device) -> "Masks":
        """Return the same draws on a device."""
        return Masks(*(None if kept is None else kept.to(device) for kept in self))


NO_DROPOUT = Masks()


class Student(NamedTuple):
    """The matched two-tower model: what a flat parameter vector means on each side."""

    image: Tower
    """From image representations to embeddings."""
    text: Tower
    """From text embeddings (frozen) to embeddings of the common space."""
    represent: Tower = as_it_is
    """From what is stored of an image to its representation: the trained encoder, or nothing where that is frozen."""
    stack: Callable[[Tower], Tower] = torch.func.vmap
    """Turns a tower into one for S parameter vectors (S, P) and S batches (S, B, ...)."""
    second_order: str = "forward-over-reverse"
    """How its loss is differentiated twice: a name in `repblend.matching.second_order.SECOND_ORDER`."""

    def embed_images(self, inputs: Tensor, flat: Tensor, *kept: Tensor) -> Tensor:
        """Represent and embed images, (B, ...) -> (B, D)."""
        return self.image(self.represent(inputs, flat), flat, *kept)

    def dropping(self, masks: Masks) -> "Student":
        """Return this model as it is in a training step with these draws of dropout."""
        return self._replace(image=_with_mask(self.image, masks.img), text=_with_mask(self.text, masks.txt))


def _with_mask(tower: Tower, kept: Tensor | None) -> Tower:
    return tower if kept is None else lambda inputs, flat: tower(inputs, flat, kept)


@dataclass(frozen=True)
class SyntheticData:
    """What is distilled, as the matched model sees it."""

    images: Tensor
    """(N, D_img) frozen features of the synthetic images; pixels where the image encoder itself is matched."""
    texts: Tensor
    """(N, D_txt) raw text embeddings."""
    similarity: Similarity

    def tensors(self) -> dict[str, Tensor]:
        return {"images": self.images, "texts": self.texts} | self.similarity.tensors()

    def rows(self, indices: Tensor) -> "SyntheticData":
        return SyntheticData(self.images[indices], self.texts[indices], self.similarity.rows(indices))

    def with_tensors(self, tensors: dict[str, Tensor]) -> "SyntheticData":
        return SyntheticData(tensors["images"], tensors["texts"], self.similarity.with_tensors(tensors))

    def as_leaves(self) -> "SyntheticData":
        """The same values as new leaves that gradients can be taken with respect to."""
        return self.with_tensors({name: value.detach().requires_grad_() for name, value in self.tensors().items()})


class InnerStep(NamedTuple):
    """The draws of one inner step."""

    indices: Tensor
    """(B,) pairs of the batch, distinct."""
    perturbation: Perturbation | None
    """RB or its stand-in; None leaves representations as they are."""
    masks: Masks = NO_DROPOUT
    """What the heads keep while the student takes the step."""
    gradient_masks: Masks = NO_DROPOUT
    """What they keep in TESLA's second pass: the same draws, or, as released, others."""

    def to(self, device: Device) -> "InnerStep":
        """Return the same draws on a device."""
        return InnerStep(self.indices.to(device), self.perturbation and self.perturbation.to(device),
                         self.masks.to(device), self.gradient_masks.to(device))

    def in_second_pass(self) -> "InnerStep":
        """Return the step as TESLA's second pass sees it."""
        return self._replace(masks=self.gradient_masks)


class Objective(NamedTuple):
    """The student's loss."""

    loss: Loss
    temperature: float


def inner_loss(student: Student, theta: PerModality, batch: SyntheticData, perturbation: Perturbation | None,
               objective: Objective) -> Tensor:
    """Return the student's loss on one batch, a scalar."""
    images, texts = student.represent(batch.images, theta.img), batch.texts
    if perturbation is not None:
        images, texts = perturbation.apply(images, texts)
    logits = cosine_logits(student.image(images, theta.img), student.text(texts, theta.txt), objective.temperature)
    return objective.loss(logits, batch.similarity.matrix())


def per_modality(function: Callable[..., Tensor], *values: PerModality) -> PerModality:
    """Apply a function to the image sides of the values, and to their text sides."""
    return PerModality(*(function(*side) for side in zip(*values, strict=True)))


def on(device: Device, values: PerModality) -> PerModality:
    """Return the same values on a device."""
    return PerModality(*(value.to(device) for value in values))


def as_leaves(theta: PerModality) -> PerModality:
    """Return the same values as new leaves that gradients can be taken with respect to."""
    return PerModality(*(value.detach().requires_grad_() for value in theta))
