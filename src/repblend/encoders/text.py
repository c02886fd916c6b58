"""Frozen text encoders: embeddings of captions from a transformer's last layer.

Shapes: B captions, T tokens, D embedding width.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repblend.progress import progress

Pool = Callable[[Tensor, Tensor], Tensor]
"""(last layer (B, T, D), attention mask (B, T)) -> embeddings (B, D)."""
MAX_TOKENS = 256
"""Longer captions are cut, as the MiniLM sentence encoder does; a model made for fewer cuts at its own limit."""
BATCH_SIZE = 32


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


class TextEncoder:
    """A frozen transformer with its tokenizer."""

    def __init__(self, module: nn.Module, tokenizer: Callable, pool: Pool) -> None:
        self._module, self._tokenizer, self._pool = module.eval().requires_grad_(False), tokenizer, pool

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Return (len(captions), D) float32 embeddings, in the order given.

        Captions of the same length in tokens go through together, so nothing is padded and a caption's embedding does
        not depend on what else is encoded (but for the last bits, with the size of its batch).
        """
        max_tokens = min(MAX_TOKENS, self._tokenizer.model_max_length)
        tokens = self._tokenizer(list(captions), truncation=True, max_length=max_tokens)["input_ids"]
        order = sorted(range(len(captions)), key=lambda row: (len(tokens[row]), row))
        batches = _equal_lengths(order, [len(row) for row in tokens])
        encoded = [self._forward(torch.tensor([tokens[row] for row in batch]))
                   for batch in progress(batches, "encode captions", "batch")]
        restored = torch.empty(len(captions), dtype=torch.long)
        restored[torch.tensor(order)] = torch.arange(len(captions))
        return torch.cat(encoded)[restored]

    def _forward(self, tokens: Tensor) -> Tensor:
        mask = torch.ones_like(tokens)
        with torch.no_grad():
            hidden = self._module(input_ids=tokens, attention_mask=mask).last_hidden_state
        return self._pool(hidden, mask)


def _equal_lengths(order: list[int], lengths: list[int]) -> list[list[int]]:
    """Cut rows sorted by length into batches of one length and at most BATCH_SIZE."""
    batches: list[list[int]] = []
    for row in order:
        if batches and lengths[batches[-1][0]] == lengths[row] and len(batches[-1]) < BATCH_SIZE:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
