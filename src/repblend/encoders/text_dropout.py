"""A text encoder in training mode, with dropout that a generator of ours draws (PAPER.md section 11, trap 11).

While the released experts are trained, their frozen BERT is in training mode: a caption has other features in every
batch, and other ones than in evaluation, where everything else sees it. Dropout layers draw from the global generator
of the device they run on; here every draw comes from the generator that is given, on the CPU, so that the features of a
batch follow from the batch's name alone.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class DrawnDropout(TorchFunctionMode):
    """Makes dropout, in layers and inside of attention, draw from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.dropout:
            return self._dropout(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropout(self, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return values
        kept = torch.rand(values.shape, generator=self._generator) >= p
        return values * kept.to(values.device) / (1 - p)

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                   dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                   enable_gqa: bool = False) -> Tensor:
        """Attention written out, which the fused one equals but for its draws."""
        assert not (is_causal or enable_gqa), "no text encoder of the registry asks for either"
        scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return self._dropout(scores.softmax(dim=-1), dropout_p) @ value


def last_layer_in_training(module: nn.Module, tokenizer: Callable, max_tokens: int, captions: Sequence[str],
                           generator: torch.Generator, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return a frozen transformer's last layer (B, T, D) in training mode, and the attention mask (B, T).

    The captions pass through together, padded to the longest, as in the released code. The module is left in
    evaluation mode.
    """
    tokens = tokenizer(list(captions), truncation=True, max_length=max_tokens, padding=True, return_tensors="pt")
    ids, mask = (tokens[name].to(device) for name in ("input_ids", "attention_mask"))
    module.train()
    try:
        with torch.no_grad(), DrawnDropout(generator):
            hidden = module(input_ids=ids, attention_mask=mask).last_hidden_state
    finally:
        module.eval()
    return hidden, mask
