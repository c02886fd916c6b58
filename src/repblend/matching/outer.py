"""The outer optimiser over images, texts, soft similarity and inner learning rates (parity/README.md section 1.5)."""

from typing import NamedTuple

import torch
from torch import Tensor

from repblend.matching.similarity import Similarity
from repblend.matching.step import PerModality

RATE_NAMES = ("lr_img", "lr_txt")


class LinearRates:
    """The optimiser works on the inner learning rates themselves, as published."""

    @staticmethod
    def to_raw(rate: Tensor) -> Tensor:
        return rate

    @staticmethod
    def to_rate(raw: Tensor) -> Tensor:
        return raw

    @staticmethod
    def raw_gradient(rate_gradient: Tensor, rate: Tensor) -> Tensor:
        return rate_gradient


class LogRates:
    """The optimiser works on their logarithms: a rate stays positive, and a step is relative to its size."""

    @staticmethod
    def to_raw(rate: Tensor) -> Tensor:
        return rate.log()

    @staticmethod
    def to_rate(raw: Tensor) -> Tensor:
        return raw.exp()

    @staticmethod
    def raw_gradient(rate_gradient: Tensor, rate: Tensor) -> Tensor:
        return rate_gradient * rate


RATE_SPACES = {"linear": LinearRates, "log": LogRates}
"""Where the inner learning rates are optimised, by its name in `params.yaml`."""


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


class Learned:
    """Everything that is learned, by name: the leaves that the optimiser updates in place."""

    def __init__(self, images: Tensor, texts: Tensor, similarity: Similarity, rates: PerModality,
                 rate_space: type[LinearRates] | type[LogRates]) -> None:
        self._similarity, self._space = similarity, rate_space
        raw = {name: rate_space.to_raw(rate) for name, rate in zip(RATE_NAMES, rates, strict=True)}
        values = {"images": images, "texts": texts} | similarity.tensors() | raw
        self.tensors = {name: value.detach().clone() for name, value in values.items()}

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
        """Set (not accumulate) the gradient of every leaf."""
        raw = {name: self._space.raw_gradient(gradient, rate)
               for name, gradient, rate in zip(RATE_NAMES, rates, self.rates, strict=True)}
        for name, gradient in (data | raw).items():
            self.tensors[name].grad = gradient

    def clamp_rates(self, minimum: float) -> None:
        """Raise each inner learning rate to a minimum; below that nothing changes."""
        for name, rate in zip(RATE_NAMES, self.rates, strict=True):
            self.tensors[name].copy_(self._space.to_raw(rate.clamp(min=minimum)))


def sgd(learned: Learned, rates: OuterRates, momenta: Momenta) -> torch.optim.Optimizer:
    """The published optimiser: SGD with heavy-ball momentum, no weight decay, no dampening."""
    momentum_of = {"images": momenta.synthetic, "texts": momenta.synthetic,
                   "similarity": momenta.similarity, "rates": momenta.rates}
    groups = _groups(learned, rates)
    return torch.optim.SGD([group | {"momentum": momentum_of[group["name"]]} for group in groups], lr=0.0)


def adam(learned: Learned, rates: OuterRates) -> torch.optim.Optimizer:
    """Adam with its usual settings: a step does not depend on the gradients' scale."""
    return torch.optim.Adam(_groups(learned, rates))


def _groups(learned: Learned, rates: OuterRates) -> list[dict]:
    tensors = learned.tensors
    members = {"images": ["images"], "texts": ["texts"], "rates": list(RATE_NAMES),
               "similarity": [name for name in tensors if name.startswith("similarity")]}
    return [{"params": [tensors[name] for name in names], "lr": getattr(rates, group), "name": group}
            for group, names in members.items() if names]


def warmed_up(factor: float, iteration: int, warm_up: int) -> float:
    """Scale a schedule's factor down in the first `warm_up` iterations, linearly: Adam is boldest at first."""
    return factor * min(1.0, (iteration + 1) / warm_up) if warm_up else factor


def optimiser_tensors(learned: Learned, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's memory by name, for a checkpoint; empty before the first step."""
    return {f"optimiser/{name}/{key}": value for name, tensor in learned.tensors.items()
            for key, value in optimiser.state.get(tensor, {}).items()}


def restore_optimiser(learned: Learned, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give the optimiser back what `optimiser_tensors` returned."""
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimiser":
            name, _, slot = rest.partition("/")
            # Adam counts its steps on the CPU, wherever it works.
            device = "cpu" if slot == "step" else learned.tensors[name].device
            optimiser.state[learned.tensors[name]][slot] = value.to(device)
