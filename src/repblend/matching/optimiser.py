"""What is learned, and the outer optimiser over images, texts, soft similarity and inner learning rates.

    published: v <- mu v + gradient,    p <- p - lr v        (v starts as the first gradient)
    rates in log space: the optimiser moves ln eta, whose gradient is eta d L / d eta

(`paper/METHOD.md`, section 7.) Pairs that no batch drew still move by their momentum. A variant may learn some of the
parts alone, say texts: all others keep the bits that they started with.

Shapes: N pairs, D_txt width of the text embeddings.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.adam import adam as update_adam
from torch.optim.sgd import sgd as update_sgd

from repblend.matching.similarity import Similarity
from repblend.matching.student import PerModality

RATE_NAMES = ("lr_img", "lr_txt")
PARTS = ("images", "texts", "similarity", "rates")
"""What can be learned, as `params.yaml` names it; each has an outer learning rate of its own."""


def part_of(name: str) -> str:
    """Return the part that a learned tensor belongs to, by the name of the tensor."""
    return {"images": "images", "texts": "texts"}.get(name, "rates" if name in RATE_NAMES else "similarity")


class RateSpace(NamedTuple):
    """What the optimiser works on in the place of an inner learning rate."""

    to_raw: Callable[[Tensor], Tensor]
    to_rate: Callable[[Tensor], Tensor]
    raw_gradient: Callable[[Tensor, Tensor], Tensor]
    """From the gradient of the rate, and the rate."""


LinearRates = RateSpace(lambda rate: rate, lambda raw: raw, lambda gradient, rate: gradient)
"""The inner learning rates themselves, as published."""
LogRates = RateSpace(torch.log, torch.exp, torch.mul)
"""Their logarithms: a rate stays positive, and a step is relative to its size."""
RATE_SPACES = {"linear": LinearRates, "log": LogRates}
"""Where the inner learning rates are optimised, by its name in `params.yaml`."""


class Learned:
    """Everything that a set consists of, by name: the leaves that the optimiser updates in place, and constants."""

    def __init__(self, images: Tensor, texts: Tensor, similarity: Similarity, rates: PerModality,
                 rate_space: RateSpace, parts: Collection[str] = PARTS) -> None:
        """Copy the values to start from.

        Args:
            images: (N, 3, H, W).
            texts: (N, D_txt).
            rates: inner learning rates, scalars.
            parts: those of `PARTS` that are learned; all others are constant.
        """
        self._similarity, self._space = similarity, rate_space
        raw = {name: rate_space.to_raw(rate) for name, rate in zip(RATE_NAMES, rates, strict=True)}
        values = {"images": images, "texts": texts} | similarity.tensors() | raw
        self.tensors = {name: value.detach().clone() for name, value in values.items()}
        self.constant = frozenset(name for name in self.tensors if part_of(name) not in parts)

    @property
    def images(self) -> Tensor:
        return self.tensors["images"]

    @property
    def texts(self) -> Tensor:
        return self.tensors["texts"]

    @property
    def similarity(self) -> Similarity:
        return self._similarity.with_tensors(self.tensors)

    @property
    def rates(self) -> PerModality:
        return PerModality(*(self._space.to_rate(self.tensors[name]) for name in RATE_NAMES))

    def set_gradients(self, data: dict[str, Tensor], rates: PerModality) -> None:
        """Set (not accumulate) the gradient of every leaf; those of the rates are ignored where these are constant."""
        raw = {name: self._space.raw_gradient(gradient, rate)
               for name, gradient, rate in zip(RATE_NAMES, rates, self.rates, strict=True) if name not in self.constant}
        for name, gradient in (data | raw).items():
            self.tensors[name].grad = gradient

    def clamp_rates(self, minimum: float) -> None:
        """Raise each inner learning rate that is learned to a minimum; below that nothing changes."""
        for name, rate in zip(RATE_NAMES, self.rates, strict=True):
            if name in self.constant:  # there and back from log space, a rate may lose its last bit
                continue
            self.tensors[name].copy_(self._space.to_raw(rate.clamp(min=minimum)))


class OuterRates(NamedTuple):
    """Learning rates of the outer optimiser."""

    images: float
    texts: float
    similarity: float
    rates: float


class Momenta(NamedTuple):
    """Momenta of the outer SGD, as the released options name them."""

    synthetic: float
    """Images and texts."""
    rates: float
    similarity: float


Update = Callable[[str, Tensor, Tensor, dict[str, Tensor], float], None]
"""(group, value, gradient, memory, learning rate) -> None; changes the value and its memory in place."""


class OuterOptimiser:
    """An optimiser of what is learned.

    The updates are `torch.optim`'s functions. Its classes import PyTorch's compiler, which takes two seconds.
    """

    def __init__(self, learned: Learned, rates: OuterRates, update: Update) -> None:
        self._learned, self._rates, self._update = learned, rates, update
        self._memory: dict[str, dict[str, Tensor]] = {name: {} for name in learned.tensors}

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        """Move everything that is learned by its gradient, at this factor of the learning rates."""
        for name, value in self._learned.tensors.items():
            if name in self._learned.constant:
                continue
            assert value.grad is not None, name
            group = part_of(name)
            self._update(group, value, value.grad, self._memory[name], getattr(self._rates, group) * factor)

    def tensors(self) -> dict[str, Tensor]:
        """Return the optimiser's memory by name, for a checkpoint; empty before the first step."""
        return {f"optimiser/{name}/{slot}": value for name, memory in self._memory.items()
                for slot, value in memory.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Give back what `tensors` returned; other names are ignored."""
        for key, value in tensors.items():
            part, *place = key.split("/")
            if part == "optimiser":
                name, slot = place
                # Adam counts its steps on the CPU, wherever it works.
                device = "cpu" if slot == "step" else self._learned.tensors[name].device
                self._memory[name][slot] = value.to(device)


def sgd(learned: Learned, rates: OuterRates, momenta: Momenta) -> OuterOptimiser:
    """Return the published optimiser: SGD with heavy-ball momentum, no weight decay, no dampening."""
    momentum_of = {"images": momenta.synthetic, "texts": momenta.synthetic, "similarity": momenta.similarity,
                   "rates": momenta.rates}

    def update(group: str, value: Tensor, gradient: Tensor, memory: dict[str, Tensor], rate: float) -> None:
        velocity = [memory.get("momentum_buffer")]
        update_sgd([value], [gradient], velocity, lr=rate, momentum=momentum_of[group], weight_decay=0.0,
                   dampening=0.0, nesterov=False, maximize=False)
        if velocity[0] is not None:
            memory["momentum_buffer"] = velocity[0]

    return OuterOptimiser(learned, rates, update)


def adam(learned: Learned, rates: OuterRates) -> OuterOptimiser:
    """Return Adam with its usual settings: a step does not depend on the gradients' scale."""

    def update(group: str, value: Tensor, gradient: Tensor, memory: dict[str, Tensor], rate: float) -> None:
        if not memory:
            memory |= {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(value),
                       "exp_avg_sq": torch.zeros_like(value)}
        update_adam([value], [gradient], [memory["exp_avg"]], [memory["exp_avg_sq"]], [], [memory["step"]], lr=rate,
                    beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False)

    return OuterOptimiser(learned, rates, update)
