"""Training of one expert on cached features (PAPER.md section 5.4; parity/README.md section 7).

Loss: mean of both cross-entropies of the cosine logits with the pairs as classes; plain SGD on both heads.

Shapes: V views, I images, M pairs (captions), B pairs of a batch, P parameters.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from repblend.data.features import widened
from repblend.matching.dropout import DrawMasks
from repblend.matching.losses import cosine_logits, infonce
from repblend.matching.step import NO_DROPOUT, Masks, PerModality, Student


class Pairs(Protocol):
    """A training set that batches are drawn from."""

    texts: Tensor
    """(M, D_txt), one row per caption."""

    @property
    def num_views(self) -> int:
        """Views per image that draws choose from."""

    def batches(self, draws: Iterable["ExpertBatch"]) -> Iterator[tuple["ExpertBatch", Tensor, Tensor]]:
        """Yield each draw with what it shows of images, and text features (B, D_txt)."""


@dataclass(frozen=True)
class TrainingPairs:
    """The real training set as frozen features."""

    views: Tensor
    """(V, I, D_img) float32 or float16: features of V augmented views of every image; may lie on the disk."""
    texts: Tensor
    """(M, D_txt) float32 or float16, one row per caption; may lie on the disk."""
    image_index: Tensor
    """(M,) int64: which image a caption belongs to."""

    @property
    def num_views(self) -> int:
        """V."""
        return len(self.views)

    def batches(self, draws: Iterable["ExpertBatch"]) -> Iterator[tuple["ExpertBatch", Tensor, Tensor]]:
        """Yield each draw with image features (B, D_img) and text features (B, D_txt) of its pairs."""
        return ((draw, *self.batch(draw)) for draw in draws)

    def batch(self, draw: "ExpertBatch") -> tuple[Tensor, Tensor]:
        """Return image features (B, D_img) and text features (B, D_txt) of the drawn pairs."""
        texts = widened(self.texts[draw.pairs]) if draw.texts is None else draw.texts
        return widened(self.views[draw.views, self.image_index[draw.pairs]]), texts


class ExpertBatch(NamedTuple):
    """The draws of one expert step."""

    pairs: Tensor
    """(B,) caption rows."""
    views: Tensor
    """(B,) which view of its image each pair shows."""
    masks: Masks = NO_DROPOUT
    """What dropout keeps of both heads."""
    texts: Tensor | None = None
    """(B, D_txt) text features drawn for this batch alone; without them, the cached ones."""


class StepResult(NamedTuple):
    """One training step, measured before its update."""

    loss: float
    accuracy: float
    """Share of the batch whose own partner has the highest logit, averaged over both directions."""


def draw_epoch(num_pairs: int, num_views: int, batch_size: int, generator: torch.Generator) -> list[ExpertBatch]:
    """Return one pass over the pairs in a new order; a last partial batch is dropped, as published."""
    size = min(batch_size, num_pairs)
    order = torch.randperm(num_pairs, generator=generator)[: num_pairs // size * size]
    views = torch.randint(num_views, order.shape, generator=generator)
    return [ExpertBatch(*parts) for parts in zip(order.split(size), views.split(size), strict=True)]


def with_dropout(draws: Iterable[ExpertBatch], draw_masks: DrawMasks,
                 generator: torch.Generator) -> Iterator[ExpertBatch]:
    """Yield the batches with their draws of dropout, made when they are asked for: an epoch's would fill the memory."""
    return (draw._replace(masks=draw_masks(len(draw.pairs), generator)) for draw in draws)


def with_texts(draws: Iterable[ExpertBatch], encode: Callable[[Tensor], Tensor]) -> Iterator[ExpertBatch]:
    """Yield the batches with text features of their own, (B, D_txt), from `encode` of their caption rows (B,)."""
    return (draw._replace(texts=encode(draw.pairs)) for draw in draws)


def with_cached_views(draws: Iterable[ExpertBatch], image_index: Tensor, num_cached: int) -> Iterator[ExpertBatch]:
    """Yield the batches as a loader gives them that keeps the last augmented images (PAPER.md section 11, trap 7).

    Args:
        image_index: (M,) which image a caption belongs to.
        num_cached: a pair whose image is among the last this many distinct ones shows the view that it showed then.
    """
    kept: OrderedDict[int, int] = OrderedDict()

    def shown(image: int, drawn: int) -> int:
        view = kept.pop(image, drawn)
        kept[image] = view
        if len(kept) > num_cached:
            kept.popitem(last=False)
        return view

    for draw in draws:
        images = image_index[draw.pairs].tolist()
        views = [shown(image, drawn) for image, drawn in zip(images, draw.views.tolist(), strict=True)]
        yield draw._replace(views=torch.tensor(views))


def train_expert(pairs: Pairs, initial: PerModality, batches: Iterator[ExpertBatch], student: Student,
                 lr: float, momentum: float, weight_decay: float,
                 temperature: float) -> Iterator[tuple[StepResult, PerModality]]:
    """Train both heads and yield, after every step, its result and the parameters.

    Args:
        initial: (P,) of each head; not changed. Where they are, the training is.
        batches: the draws, one step each.
        student: how a flat vector acts on features.

    Yields:
        The step's loss and accuracy, and a copy of the heads after its update. (A copy: the released code saved
        aliases of the live parameters on the CPU, so all its snapshots were equal.)
    """
    heads = PerModality(*(value.clone().requires_grad_() for value in initial))
    optimiser = torch.optim.SGD(heads, lr=lr, momentum=momentum, weight_decay=weight_decay)
    device = heads.img.device
    for draw, images, texts in pairs.batches(batches):
        dropping = student.dropping(draw.masks.to(device))
        logits = cosine_logits(dropping.embed_images(images.to(device), heads.img),
                               dropping.text(texts.to(device), heads.txt), temperature)
        loss = infonce(logits, torch.eye(len(logits), dtype=logits.dtype, device=device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield (StepResult(loss.item(), _accuracy(logits.detach())),
               PerModality(*(value.detach().clone() for value in heads)))


def _accuracy(logits: Tensor) -> float:
    own = torch.arange(len(logits), device=logits.device)
    return sum((logits.argmax(dim=dim) == own).double().mean().item() for dim in (0, 1)) / 2
