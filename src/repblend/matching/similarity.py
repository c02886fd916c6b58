"""Soft similarity Y of a synthetic set: diagonal plus low rank, or a full matrix (PAPER.md section 2, from LoRS).

Shapes: N pairs, r rank, B pairs of a batch. Rows are images, columns texts.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor


class Similarity(Protocol):
    """What the engine and the evaluation need of a soft similarity."""

    def matrix(self) -> Tensor:
        """The whole similarity, (N, N)."""
        ...

    def batch(self, indices: Tensor) -> Tensor:
        """Rows and columns `indices` (B,) of it, (B, B)."""
        ...

    def rows(self, indices: Tensor) -> Self:
        """The similarity of these pairs alone, from the parameters of these pairs alone."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Its parameters by name."""
        ...

    def with_tensors(self, tensors: dict[str, Tensor]) -> Self:
        """The same kind of similarity with other parameters."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """The same similarity on a device."""
        ...


@dataclass(frozen=True)
class LowRankSimilarity:
    """Y = diag(a) + (alpha / r) L R^T."""

    diagonal: Tensor
    """a, (N,)."""
    left: Tensor
    """L, (N, r); its rows belong to images."""
    right: Tensor
    """R, (N, r); its rows belong to texts."""
    alpha: float
    """Weight of the low-rank part (`lora_alpha` in the released code)."""

    @classmethod
    def identity(cls, num_pairs: int, rank: int, alpha: float, generator: torch.Generator) -> "LowRankSimilarity":
        """The published start: a = 1, L standard normal, R = 0, so that Y is the identity."""
        return cls(torch.ones(num_pairs), torch.randn(num_pairs, rank, generator=generator),
                   torch.zeros(num_pairs, rank), alpha)

    def matrix(self) -> Tensor:
        return torch.diag(self.diagonal) + self.alpha / self.left.shape[1] * (self.left @ self.right.mT)

    def batch(self, indices: Tensor) -> Tensor:
        return self.rows(indices).matrix()

    def rows(self, indices: Tensor) -> "LowRankSimilarity":
        return LowRankSimilarity(self.diagonal[indices], self.left[indices], self.right[indices], self.alpha)

    def tensors(self) -> dict[str, Tensor]:
        return {"similarity_diagonal": self.diagonal, "similarity_left": self.left, "similarity_right": self.right}

    def with_tensors(self, tensors: dict[str, Tensor]) -> "LowRankSimilarity":
        return LowRankSimilarity(tensors["similarity_diagonal"], tensors["similarity_left"],
                                 tensors["similarity_right"], self.alpha)

    def to(self, device: torch.device | str) -> "LowRankSimilarity":
        return _moved(self, device)


@dataclass(frozen=True)
class FullSimilarity:
    """Y = M, every entry a parameter."""

    values: Tensor
    """M, (N, N)."""

    @classmethod
    def identity(cls, num_pairs: int) -> "FullSimilarity":
        return cls(torch.eye(num_pairs))

    def matrix(self) -> Tensor:
        return self.values

    def batch(self, indices: Tensor) -> Tensor:
        return self.values[indices][:, indices]

    def rows(self, indices: Tensor) -> "FullSimilarity":
        return FullSimilarity(self.batch(indices))

    def tensors(self) -> dict[str, Tensor]:
        return {"similarity_full": self.values}

    def with_tensors(self, tensors: dict[str, Tensor]) -> "FullSimilarity":
        return FullSimilarity(tensors["similarity_full"])

    def to(self, device: torch.device | str) -> "FullSimilarity":
        return _moved(self, device)


@dataclass(frozen=True)
class IdentitySimilarity:
    """Y = I and nothing to learn: every image belongs to its own text only (coresets, MTT-VL, TESLA-VL)."""

    num_pairs: int
    device: torch.device | str = "cpu"

    def matrix(self) -> Tensor:
        return torch.eye(self.num_pairs, device=self.device)

    def batch(self, indices: Tensor) -> Tensor:
        return self.rows(indices).matrix()

    def rows(self, indices: Tensor) -> "IdentitySimilarity":
        return IdentitySimilarity(len(indices), self.device)

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def with_tensors(self, tensors: dict[str, Tensor]) -> "IdentitySimilarity":
        return self

    def to(self, device: torch.device | str) -> "IdentitySimilarity":
        return IdentitySimilarity(self.num_pairs, device)


def _moved(similarity: Similarity, device: torch.device | str) -> Similarity:
    return similarity.with_tensors({name: value.to(device) for name, value in similarity.tensors().items()})
