"""Soft similarity Y of a synthetic set, after LoRS: diagonal plus low rank, or a full matrix, or the identity.

    Y = diag(a) + (alpha / r) L R^T        and of a batch b:   diag(a[b]) + (alpha / r) L[b] R[b]^T

(`paper/METHOD.md`, section 3.) Rows are images, columns texts.

Shapes: N pairs, r rank, B pairs of a batch.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


class Similarity(ABC):
    """What the engine and the evaluation need of a soft similarity."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """The whole similarity, (N, N)."""

    @abstractmethod
    def rows(self, indices: Tensor) -> Self:
        """The similarity of these pairs alone, from the parameters of these pairs alone."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Its parameters by name."""

    @abstractmethod
    def with_tensors(self, tensors: dict[str, Tensor]) -> Self:
        """The same kind of similarity with other parameters."""

    def batch(self, indices: Tensor) -> Tensor:
        """Rows and columns `indices` (..., B) of it, (..., B, B); of the identity (B, B)."""
        return self.rows(indices).matrix()

    def to(self, device: torch.device | str) -> Self:
        """The same similarity on a device."""
        return self.with_tensors({name: value.to(device) for name, value in self.tensors().items()})


@dataclass(frozen=True)
class LowRankSimilarity(Similarity):
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
        return torch.diag_embed(self.diagonal) + self.alpha / self.left.shape[-1] * (self.left @ self.right.mT)

    def rows(self, indices: Tensor) -> "LowRankSimilarity":
        return LowRankSimilarity(self.diagonal[indices], self.left[indices], self.right[indices], self.alpha)

    def tensors(self) -> dict[str, Tensor]:
        return {"similarity_diagonal": self.diagonal, "similarity_left": self.left, "similarity_right": self.right}

    def with_tensors(self, tensors: dict[str, Tensor]) -> "LowRankSimilarity":
        return LowRankSimilarity(tensors["similarity_diagonal"], tensors["similarity_left"],
                                 tensors["similarity_right"], self.alpha)


@dataclass(frozen=True)
class FullSimilarity(Similarity):
    """Y = M, every entry a parameter."""

    values: Tensor
    """M, (N, N)."""

    @classmethod
    def identity(cls, num_pairs: int) -> "FullSimilarity":
        return cls(torch.eye(num_pairs))

    def matrix(self) -> Tensor:
        return self.values

    def rows(self, indices: Tensor) -> "FullSimilarity":
        return FullSimilarity(self.values[indices[..., :, None], indices[..., None, :]])

    def tensors(self) -> dict[str, Tensor]:
        return {"similarity_full": self.values}

    def with_tensors(self, tensors: dict[str, Tensor]) -> "FullSimilarity":
        return FullSimilarity(tensors["similarity_full"])


@dataclass(frozen=True)
class IdentitySimilarity(Similarity):
    """Y = I and nothing to learn: every image belongs to its own text only (coresets, MTT-VL, TESLA-VL)."""

    num_pairs: int
    device: torch.device | str = "cpu"

    def matrix(self) -> Tensor:
        return torch.eye(self.num_pairs, device=self.device)

    def rows(self, indices: Tensor) -> "IdentitySimilarity":
        return IdentitySimilarity(indices.shape[-1], self.device)

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def with_tensors(self, tensors: dict[str, Tensor]) -> "IdentitySimilarity":
        return self

    def to(self, device: torch.device | str) -> "IdentitySimilarity":
        return IdentitySimilarity(self.num_pairs, device)
