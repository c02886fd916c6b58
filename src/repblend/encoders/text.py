"""Frozen text encoders: embeddings of captions from a transformer's last layer.

Shapes: B captions, T tokens, D embedding width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repblend.encoders.text_dropout import last_layer_in_training
from repblend.progress import progress

Pool = Callable[[Tensor, Tensor], Tensor]
"""(last layer (B, T, D), attention mask (B, T)) -> embeddings (B, D)."""
MAX_TOKENS = 256
"""Longer captions are cut, as the MiniLM sentence encoder does; a model made for fewer cuts at its own limit."""
BATCH_SIZE = 32
CAPTIONS_TOKENIZED_AT_ONCE = 10_000


def first_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """The CLS token's state, as the paper uses BERT and DistilBERT."""
    return hidden[:, 0]


def unit_first_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """The CLS token's state at length one, as BGE is meant to be used."""
    return F.normalize(hidden[:, 0], dim=-1)


def unit_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean over the caption's tokens at length one, as the MiniLM sentence encoder is meant to be used."""
    weights = mask[..., None].to(hidden.dtype)
    return F.normalize((hidden * weights).sum(dim=1) / weights.sum(dim=1), dim=-1)


class CaptionEncoder(ABC):
    """What turns captions into embeddings, which come back on the CPU."""

    device: torch.device | str = "cpu"

    def to(self, device: torch.device | str) -> Self:
        """Move the encoder to a device and return it; one that computes with tensors moves them as well."""
        self.device = device
        return self

    @property
    @abstractmethod
    def feature_dim(self) -> int:
        """D."""

    @abstractmethod
    def encode_batches(self, captions: Sequence[str], first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield embeddings batch by batch: which captions they belong to (B,) int64, and (B, D) float32.

        Args:
            first: the batch to begin with; earlier ones were used already. Changes no batch.
        """

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Return (len(captions), D) float32 embeddings, in the order given."""
        rows, embeddings = zip(*self.encode_batches(captions), strict=True)
        return torch.cat(embeddings)[torch.cat(rows).argsort()]

    def encode_in_training(self, captions: Sequence[str], generator: torch.Generator) -> Tensor:
        """Return (len(captions), D) embeddings with the encoder's dropout, if it has any, drawn from the generator."""
        return self.encode(captions)


class TextEncoder(CaptionEncoder):
    """A frozen transformer with its tokenizer.

    Captions of the same length in tokens go through together, so nothing is padded and a caption's embedding does not
    depend on what else is encoded (but for the last bits, with the size of its batch).
    """

    def __init__(self, module: nn.Module, tokenizer: Callable, pool: Pool) -> None:
        self._module, self._tokenizer, self._pool = module.eval().requires_grad_(False), tokenizer, pool

    def to(self, device: torch.device | str) -> Self:
        self._module, self.device = self._module.to(device), device
        return self

    @property
    def feature_dim(self) -> int:
        return self._module.config.hidden_size

    def encode_batches(self, captions: Sequence[str], first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches, shortest captions first; of all captions only the tokens are held, four bytes each."""
        tokens = self._tokenize(captions)
        order = sorted(range(len(captions)), key=lambda row: (len(tokens[row]), row))
        batches = _equal_lengths(order, [len(row) for row in tokens])
        done = sum(map(len, batches[:first]))
        for batch in progress(batches[first:], "encode captions", "caption", start=done, total=len(captions), size=len):
            yield torch.tensor(batch), self._forward(torch.from_numpy(np.stack([tokens[row] for row in batch])).long())

    def _tokenize(self, captions: Sequence[str]) -> list[np.ndarray]:
        """Token numbers of every caption; what else a tokenizer says of it is held for a piece of the captions only."""
        max_tokens = min(MAX_TOKENS, self._tokenizer.model_max_length)
        pieces = (captions[first:first + CAPTIONS_TOKENIZED_AT_ONCE]
                  for first in range(0, len(captions), CAPTIONS_TOKENIZED_AT_ONCE))
        return [np.array(row, np.int32) for piece in pieces
                for row in self._tokenizer(list(piece), truncation=True, max_length=max_tokens)["input_ids"]]

    def encode_in_training(self, captions: Sequence[str], generator: torch.Generator) -> Tensor:
        max_tokens = min(MAX_TOKENS, self._tokenizer.model_max_length)
        return self._pool(*last_layer_in_training(self._module, self._tokenizer, max_tokens, captions, generator,
                                                  self.device)).cpu()

    def _forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens.to(self.device)
        mask = torch.ones_like(tokens)
        with torch.no_grad():
            hidden = self._module(input_ids=tokens, attention_mask=mask).last_hidden_state
        return self._pool(hidden, mask).cpu()


def _equal_lengths(order: list[int], lengths: list[int]) -> list[list[int]]:
    """Cut rows sorted by length into batches of one length and at most BATCH_SIZE."""
    batches: list[list[int]] = []
    for row in order:
        if batches and lengths[batches[-1][0]] == lengths[row] and len(batches[-1]) < BATCH_SIZE:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
