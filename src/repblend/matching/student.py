"""The student: the two-tower model that is matched, what it sees in an inner step, and its loss there.

    h, w    = E_v(x), w                              image representations and text embeddings of a batch
    h~, w~  = blended h, w                           `repblend.matching.blending`
    Z       = <unit P_v(h~), unit P_t(w~)> / tau     rows images, columns texts
    l       = Loss(Z, Y[b, b])                       `repblend.matching.losses`, `repblend.matching.similarity`

(`paper/METHOD.md`, sections 1 to 4.) The steps that a student takes with this loss are in `repblend.matching.gradient`.

Shapes: N pairs, B pairs of a batch, K inner steps, P parameters of one modality, D embedding width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from repblend.matching.blending import Blend, Perturbation
from repblend.matching.losses import Loss, cosine_logits
from repblend.matching.similarity import Similarity

Device = torch.device | str
Tower = Callable[..., Tensor]
"""(inputs (B, ...), flat parameters (P,)) -> embeddings (B, D), twice differentiable in both. A head with dropout takes
the units to keep (B, D) as a third argument; without it, nothing is dropped."""


class PerModality(NamedTuple):
    """One tensor for the image side and one for the text side."""

    img: Tensor
    txt: Tensor


def per_modality(function: Callable[..., Tensor], *values: PerModality) -> PerModality:
    """Apply a function to the image sides of the values, and to their text sides."""
    return PerModality(*(function(*side) for side in zip(*values, strict=True)))


def on(device: Device, values: PerModality) -> PerModality:
    """Return the same values on a device."""
    return PerModality(values.img.to(device), values.txt.to(device))


class Masks(NamedTuple):
    """The head units that dropout keeps in one training step, (B, D) bool; None for a side without dropout."""

    img: Tensor | None = None
    txt: Tensor | None = None

    def to(self, device: Device) -> "Masks":
        return Masks(*(None if kept is None else kept.to(device) for kept in self))


NO_DROPOUT = Masks()
DrawMasks = Callable[[int, torch.Generator], Masks]
"""(B, generator) -> the draws of one training step."""


def unchanged(inputs: Tensor, flat: Tensor) -> Tensor:
    """A tower that does nothing."""
    return inputs


class TwoTower(NamedTuple):
    """A two-tower model: what a flat parameter vector means on each side."""

    image: Tower
    """From image representations to embeddings."""
    text: Tower
    """From text embeddings (frozen) to embeddings of the common space."""
    represent: Tower = unchanged
    """From what is stored of an image to its representation: the trained encoder, or nothing where that is frozen."""
    stack: Callable[[Tower], Tower] = torch.func.vmap
    """Turns a tower into one for S parameter vectors (S, P) and S batches (S, B, ...)."""
    second_order: str = "forward-over-reverse"
    """How its loss is differentiated twice: a name in `repblend.matching.gradient.SECOND_ORDER`."""

    def embed_images(self, inputs: Tensor, flat: Tensor, *kept: Tensor) -> Tensor:
        """Represent and embed images, (B, ...) -> (B, D)."""
        return self.image(self.represent(inputs, flat), flat, *kept)

    def dropping(self, masks: Masks) -> "TwoTower":
        """Return this model as it is in a training step with these draws of dropout."""
        return self._replace(image=_with_mask(self.image, masks.img), text=_with_mask(self.text, masks.txt))


def _with_mask(tower: Tower, kept: Tensor | None) -> Tower:
    return tower if kept is None else lambda inputs, flat: tower(inputs, flat, kept)


@dataclass(frozen=True)
class SyntheticData:
    """What is distilled, as the matched model sees it. Tensors by name are images, texts, the similarity's."""

    images: Tensor
    """(N, D_img) frozen features of the synthetic images; pixels where the image encoder itself is matched."""
    texts: Tensor
    """(N, D_txt) raw text embeddings."""
    similarity: Similarity
    constant: frozenset[str] = frozenset()
    """Names of the tensors that are not learned: gradients with respect to these are never formed."""

    def tensors(self) -> dict[str, Tensor]:
        return {"images": self.images, "texts": self.texts} | self.similarity.tensors()

    def learned(self) -> dict[str, Tensor]:
        """Return the tensors that gradients are wanted of, by name; none where only the inner rates are learned."""
        return {name: value for name, value in self.tensors().items() if name not in self.constant}

    def rows(self, indices: Tensor) -> "SyntheticData":
        """Return a batch: these pairs (B,), with the similarity among them."""
        return SyntheticData(self.images[indices], self.texts[indices], self.similarity.rows(indices))

    def with_tensors(self, tensors: dict[str, Tensor]) -> "SyntheticData":
        return SyntheticData(tensors["images"], tensors["texts"], self.similarity.with_tensors(tensors), self.constant)

    def as_leaves(self) -> "SyntheticData":
        """Return the same values as new leaves that gradients can be taken with respect to."""
        return self.with_tensors({name: value.detach().requires_grad_() for name, value in self.tensors().items()})


class InnerStep(NamedTuple):
    """The draws of one inner step."""

    indices: Tensor
    """(B,) int64 pairs of the batch, distinct."""
    perturbation: Perturbation | None
    """RB or its stand-in; None leaves representations as they are."""
    masks: Masks = NO_DROPOUT
    """What the heads keep while the student takes the step."""
    gradient_masks: Masks = NO_DROPOUT
    """What they keep in TESLA's second pass: the same draws, or, as released, others."""

    def mixed(self, rows: Tensor) -> Tensor:
        """Return what blending makes of the batch's rows (B, ...); noise, which is added, leaves them as they are."""
        return self.perturbation.mixed(rows) if isinstance(self.perturbation, Blend) else rows

    def to(self, device: Device) -> "InnerStep":
        return InnerStep(self.indices.to(device), self.perturbation and self.perturbation.to(device),
                         self.masks.to(device), self.gradient_masks.to(device))


class StudentLoss(NamedTuple):
    """What a student minimises."""

    loss: Loss
    temperature: float


def inner_loss(student: TwoTower, theta: PerModality, batch: SyntheticData, step: InnerStep,
               objective: StudentLoss) -> Tensor:
    """Return the student's loss at theta, (P,) each, on the pairs that the step draws: a scalar."""
    model = student.dropping(step.masks)
    images, texts = model.represent(batch.images, theta.img), batch.texts
    if step.perturbation is not None:
        images, texts = step.perturbation.apply(images, texts)
    logits = cosine_logits(model.image(images, theta.img), model.text(texts, theta.txt), objective.temperature)
    return objective.loss(logits, batch.similarity.matrix())


def draw_batches(num_pairs: int, num_steps: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Cut consecutive batches from random permutations of the pairs (`paper/METHOD.md`, section 6).

    When fewer than a batch remain of a permutation, the rest is dropped and a new one drawn. A batch larger than the
    set is the whole set, in a new order at every step.

    Returns:
        `num_steps` index tensors (min(batch_size, num_pairs),), int64, distinct within a batch.
    """
    size = min(batch_size, num_pairs)
    batches: list[Tensor] = []
    while len(batches) < num_steps:
        order = torch.randperm(num_pairs, generator=generator)
        batches.extend(order[: num_pairs // size * size].split(size))
    return batches[:num_steps]
