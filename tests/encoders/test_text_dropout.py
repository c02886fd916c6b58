"""A text encoder in training mode, against transformers' own with the same draws, and against evaluation mode."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertModel, BertTokenizerFast

from repblend.encoders.text import TextEncoder, first_token

CAPTIONS = ["a cat sits on the mat", "dog", "the cats", "a dog sits"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sits", "on", "the", "mat", "##s"]


def bert(folder: Path, dropout: float, attention: str) -> tuple[BertModel, BertTokenizerFast]:
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    config = BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=16, hidden_dropout_prob=dropout,
                        attention_probs_dropout_prob=dropout, attn_implementation=attention)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # transformers draws initial weights from the global stream
        model = BertModel(config)
    return model, BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=16)


def draws(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_is_the_models_own_training_mode_with_draws_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = bert(tmp_path, 0.3, "eager")
    generator = draws()

    def dropout(values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        assert training
        return values * (torch.rand(values.shape, generator=generator) >= p) / (1 - p)

    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(F, "dropout", dropout)
        tokens = tokenizer(CAPTIONS, padding=True, return_tensors="pt")
        expected = model.train()(**tokens).last_hidden_state[:, 0]
    for attention in ("eager", "sdpa"):
        encoder = TextEncoder(*bert(tmp_path, 0.3, attention), first_token)
        torch.testing.assert_close(encoder.encode_in_training(CAPTIONS, draws()), expected, rtol=1e-5, atol=1e-6)


def test_without_dropout_it_is_evaluation_mode(tmp_path: Path) -> None:
    encoder = TextEncoder(*bert(tmp_path, 0.0, "sdpa"), first_token)
    torch.testing.assert_close(encoder.encode_in_training(CAPTIONS, draws()), encoder.encode(CAPTIONS), rtol=1e-5,
                               atol=1e-6)


def test_features_follow_from_the_generator_and_nothing_stays_behind(tmp_path: Path) -> None:
    model, tokenizer = bert(tmp_path, 0.3, "sdpa")
    encoder, state = TextEncoder(model, tokenizer, first_token), torch.random.get_rng_state()
    before = encoder.encode(CAPTIONS)
    first, again, other = (encoder.encode_in_training(CAPTIONS, draws(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again) and (first - other).abs().max() > 0.1
    assert torch.equal(encoder.encode(CAPTIONS), before) and (first - before).abs().max() > 0.1
    assert torch.equal(torch.random.get_rng_state(), state) and not model.training
