"""Training of one expert on the real pairs, on cached features or on images as they are drawn.

    loss = InfoNCE(Z, I): the mean of both cross-entropies of the cosine logits, with the pairs of a batch as classes

and plain SGD on both sides (`paper/METHOD.md`, section 5). Other captions of an image in its batch count as wrong, as
published.

Shapes: V views, I images, M pairs (captions), B pairs of a batch, P parameters, H height and width of images.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from repblend.data.features import Features, widened
from repblend.data.images import prefetched
from repblend.data.views import ViewSource
from repblend.matching.losses import cosine_logits, infonce
from repblend.matching.student import NO_DROPOUT, DrawMasks, Masks, PerModality, TwoTower
from repblend.streams import CounterStream


class Pairs(Protocol):
    """A training set that batches are drawn from."""

    @property
    def texts(self) -> Tensor:
        """(M, D_txt), one row per caption."""
        ...

    @property
    def image_index(self) -> Tensor:
        """(M,) int64: which image a caption belongs to."""
        ...

    @property
    def num_views(self) -> int:
        """Views per image that draws choose from."""
        ...

    def batches(self, draws: Iterable["ExpertBatch"]) -> Iterator[tuple["ExpertBatch", Tensor, Tensor]]:
        """Yield each draw with what it shows of images, and text features (B, D_txt)."""
        ...


@dataclass(frozen=True)
class TrainingPairs:
    """The real training set as frozen features."""

    views: Tensor
    """(V, I, D_img) float32 or float16: features of V augmented views of every image; may lie on the disk."""
    texts: Tensor
    """(M, D_txt) float32 or float16, one row per caption; may lie on the disk."""
    image_index: Tensor
    """(M,) int64: which image a caption belongs to."""

    @classmethod
    def of(cls, features: Features) -> "TrainingPairs":
        """Return the training split of frozen features."""
        return cls(features.train_images, features.train_texts, features.train_image_index)

    @property
    def num_views(self) -> int:
        """V."""
        return len(self.views)

    def batches(self, draws: Iterable["ExpertBatch"]) -> Iterator[tuple["ExpertBatch", Tensor, Tensor]]:
        """Yield each draw with image features (B, D_img) and text features (B, D_txt) of its pairs."""
        return ((draw, *self.batch(draw)) for draw in draws)

    def batch(self, draw: "ExpertBatch") -> tuple[Tensor, Tensor]:
        """Return image features (B, D_img) and text features (B, D_txt) of the drawn pairs."""
        return widened(self.views[draw.views, self.image_index[draw.pairs]]), draw.texts_of(self)


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

    def texts_of(self, pairs: Pairs) -> Tensor:
        """Return the batch's text features, (B, D_txt) float32."""
        return widened(pairs.texts[self.pairs]) if self.texts is None else self.texts


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


def with_texts(draws: Iterable[ExpertBatch], encode: Callable[[Tensor, CounterStream], Tensor],
               dropout: CounterStream) -> Iterator[ExpertBatch]:
    """Yield the batches with text features of their own, (B, D_txt), from `encode` of their caption rows (B,)."""
    return (draw._replace(texts=encode(draw.pairs, dropout)) for draw in draws)


def with_cached_views(draws: Iterable[ExpertBatch], image_index: Tensor, num_cached: int) -> Iterator[ExpertBatch]:
    """Yield the batches as the released loader gives them, which keeps the last augmented images.

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


def train_expert(pairs: Pairs, initial: PerModality, batches: Iterator[ExpertBatch], student: TwoTower,
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
    optimiser = Descent([heads], [lr], momentum, weight_decay)
    device = heads.img.device
    for draw, images, texts in pairs.batches(batches):
        dropping = student.dropping(draw.masks.to(device))
        logits = cosine_logits(dropping.embed_images(images.to(device), heads.img),
                               dropping.text(texts.to(device), heads.txt), temperature)
        loss = infonce(logits, torch.eye(len(logits), dtype=logits.dtype, device=device))
        loss.backward()
        optimiser.step()
        yield (StepResult(loss.item(), _accuracy(logits.detach())),
               PerModality(*(value.detach().clone() for value in heads)))


class Descent:
    """`torch.optim.SGD` with its update, `torch.optim.sgd.sgd`, alone.

    The class imports PyTorch's compiler at its first step, which takes longer than many stages compute.
    """

    def __init__(self, groups: Sequence[Sequence[Tensor]], rates: Sequence[float], momentum: float, weight_decay: float,
                 fused: bool = False) -> None:
        """Begin a descent.

        Args:
            groups: parameters that share a rate, changed in place.
            rates: of each group.
            fused: one kernel per step, with its own rounding.
        """
        self._groups, self.rates = groups, list(rates)
        self._momentum, self._weight_decay, self._fused = momentum, weight_decay, fused
        self._velocities: list[list[Tensor | None]] = [[None] * len(group) for group in groups]

    def step(self) -> None:
        """Move every parameter against its gradient, and forget the gradients."""
        for group, rate, velocities in zip(self._groups, self.rates, self._velocities, strict=True):
            with torch.no_grad():
                sgd(list(group), [cast(Tensor, value.grad) for value in group], velocities,
                    fused=self._fused or None, weight_decay=self._weight_decay, momentum=self._momentum, lr=rate,
                    dampening=0.0, nesterov=False, maximize=False)
            for value in group:
                value.grad = None


def _accuracy(logits: Tensor) -> float:
    own = torch.arange(len(logits), device=logits.device)
    return sum((logits.argmax(dim=dim) == own).double().mean().item() for dim in (0, 1)) / 2


@dataclass(frozen=True)
class PairsFromFiles:
    """The real training set with images that are read and augmented when they are drawn (`views: fresh`).

    As in the published expert training, no two draws of an image look the same. With as many views as are encoded once,
    a draw shows the very view that the cache has the features of. Threads read ahead while a batch is trained on, a few
    batches at most.
    """

    source: ViewSource
    normalise: Callable[[Tensor], Tensor]
    """From pixels (B, 3, H, H) in [0, 1] to what the image encoder expects; called by the reading threads."""
    represent: Callable[[Tensor], Tensor]
    """From that to what is trained on: frozen features (B, D_img), or the pixels themselves."""
    texts: Tensor
    """(M, D_txt) float32 or float16, one row per caption."""
    image_index: Tensor
    """(M,) int64: which image a caption belongs to."""
    num_views: int
    """Views that draws choose from; `repblend.data.views.UNLIMITED` for ever new ones."""
    workers: int | None = None
    """Reading threads; by default one per processor. Changes no result."""

    def batches(self, draws: Iterable[ExpertBatch]) -> Iterator[tuple[ExpertBatch, Tensor, Tensor]]:
        """As `TrainingPairs.batches`.

        Raises:
            ValueError: an image cannot be read; the message names it.
        """
        for draw, pixels in prefetched(self._read, draws, self.workers):
            yield draw, self.represent(pixels), draw.texts_of(self)

    def _read(self, draw: ExpertBatch) -> Tensor:
        images = self.image_index[draw.pairs].tolist()
        shown = [self.source.view(image, view) for image, view in zip(images, draw.views.tolist(), strict=True)]
        return self.normalise(torch.stack(shown))
