"""Frozen text encoders: embeddings of captions from a transformer's last layer.

In evaluation mode, as everything sees captions, and in training mode: while the released experts are trained, their
frozen BERT is in training mode, so a caption has other features in every batch (paper/METHOD.md, section 5).

Shapes: B captions, T tokens, D embedding width.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from repblend.encoders.image import autocast
from repblend.progress import progress
from repblend.streams import CounterStream

Tokenizer = Any
"""Of transformers (captions -> token numbers and masks) or of open_clip (captions -> token numbers)."""
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
    _module: Any = nn.Identity()
    """What computes with tensors, if the encoder does."""
    _bf16 = False

    def to(self, device: torch.device | str, bf16: bool = False) -> Self:
        """Move the encoder to a device, to compute there in bfloat16 by autocast or as it is, and return it."""
        self._module, self.device, self._bf16 = self._module.to(device), device, bf16
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

    def encode_in_training(self, captions: Sequence[str], draws: CounterStream) -> Tensor:
        """Return (len(captions), D) embeddings with the encoder's dropout, if it has any."""
        return self.encode(captions)


class TextEncoder(CaptionEncoder):
    """A frozen transformer with its tokenizer.

    Captions of the same length in tokens go through together, so nothing is padded and a caption's embedding does not
    depend on what else is encoded (but for the last bits, with the size of its batch).
    """

    def __init__(self, module: nn.Module, tokenizer: Tokenizer, pool: Pool) -> None:
        self._module, self._tokenizer, self._pool = module.eval().requires_grad_(False), tokenizer, pool
        self._max_tokens = min(MAX_TOKENS, tokenizer.model_max_length)

    @property
    def feature_dim(self) -> int:
        """D."""
        return int(self._module.config.hidden_size)

    def encode_batches(self, captions: Sequence[str], first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches, shortest captions first; of all captions only the tokens are held, four bytes each."""
        pieces = (list(captions[start:start + CAPTIONS_TOKENIZED_AT_ONCE])  # masks and the like are held of one only
                  for start in range(0, len(captions), CAPTIONS_TOKENIZED_AT_ONCE))
        tokens = [np.array(row, np.int32) for piece in pieces
                  for row in self._tokenizer(piece, truncation=True, max_length=self._max_tokens)["input_ids"]]
        batches: list[list[int]] = []  # of captions of one length
        for row in sorted(range(len(captions)), key=lambda row: (len(tokens[row]), row)):
            if batches and len(tokens[batches[-1][0]]) == len(tokens[row]) and len(batches[-1]) < BATCH_SIZE:
                batches[-1].append(row)
            else:
                batches.append([row])
        done = sum(map(len, batches[:first]))
        for batch in progress(batches[first:], "encode captions", "caption", start=done, total=len(captions), size=len):
            ids = torch.from_numpy(np.stack([tokens[row] for row in batch])).long().to(self.device)
            yield torch.tensor(batch), self._forward(ids, torch.ones_like(ids))

    def encode_in_training(self, captions: Sequence[str], draws: CounterStream) -> Tensor:
        """Return (len(captions), D) embeddings of the transformer in training mode; it is left in evaluation mode.

        The captions pass through together, padded to the longest, as in the released code.
        """
        tokens = self._tokenizer(list(captions), truncation=True, max_length=self._max_tokens, padding=True,
                                 return_tensors="pt")
        ids, mask = (tokens[name].to(self.device) for name in ("input_ids", "attention_mask"))
        self._module.train()
        try:
            with DrawnDropout(draws):
                return self._forward(ids, mask)
        finally:
            self._module.eval()

    def _forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad(), autocast(self.device, self._bf16):
            hidden = self._module(input_ids=ids, attention_mask=mask).last_hidden_state
        return self._pool(hidden.float(), mask).cpu()


class DrawnDropout(TorchFunctionMode):
    """Makes dropout, in layers and inside of attention, draw from one stream, on the device where it acts.

    Layers draw from the global generator of that device, which gives other bits on another; here the features of a
    batch follow from its stream alone.
    """

    def __init__(self, draws: CounterStream) -> None:
        super().__init__()
        self._draws = draws

    def __torch_function__(self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is F.dropout:
            return self._dropout(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropout(self, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return values
        kept = self._draws.kept(values.shape, p, values.device)
        return kept.view(torch.uint8).to(values.dtype).mul_(values).mul_(1 / (1 - p))  # fastest on a processor

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                   dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                   enable_gqa: bool = False) -> Tensor:
        """Attention written out, which the fused one equals but for its draws."""
        assert not (is_causal or enable_gqa), "no text encoder of the registry asks for either"
        scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return self._dropout(scores.softmax(dim=-1), dropout_p) @ value


class OpenClipTextEncoder(CaptionEncoder):
    """The text tower of an open_clip model."""

    def __init__(self, module: nn.Module, tokenizer: Tokenizer) -> None:
        self._module, self._tokenizer = module.eval().requires_grad_(False), tokenizer

    @property
    def feature_dim(self) -> int:
        """D."""
        return self._embed(["a"]).shape[-1]

    def encode_batches(self, captions: Sequence[str], first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches in the order given; all captions have the model's length."""
        starts = range(0, len(captions), BATCH_SIZE)[first:]
        for start in progress(starts, "encode captions", "batch", start=first):
            batch = captions[start:start + BATCH_SIZE]
            yield torch.arange(start, start + len(batch)), self._embed(batch)

    def _embed(self, captions: Sequence[str]) -> Tensor:
        with torch.no_grad(), autocast(self.device, self._bf16):
            embeddings: Tensor = self._module.encode_text(self._tokenizer(list(captions)).to(self.device))
        return embeddings.float().cpu()

    def encode_in_training(self, captions: Sequence[str], draws: CounterStream) -> Tensor:
        """Return what `encode` does: these towers have no dropout."""
        return self._embed(captions)
