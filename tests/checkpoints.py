"""Small checkpoints of random weights in the hub's layout, under the names of the real ones, for the tests.

The models are built by the libraries' own names, narrowed where that is possible without changing the features' width.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import open_clip
import open_clip.factory
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import nfnet, vision_transformer
from torch import nn
from transformers import BertConfig, BertTokenizerFast, DistilBertConfig, DistilBertModel
from transformers.models.bert.modeling_bert import BertForPreTraining, BertModel

from repblend.encoders.hub import (
    CHECKPOINTS,
    OPEN_CLIP_WEIGHTS,
    WEIGHTS,
    Checkpoint,
    File,
    checkpoint_of,
    record_of,
    snapshot,
)
from repblend.store import JSON, sha256, write_json

REVISION = "0123456789abcdef0123456789abcdef01234567"
TINY_CLIP = {"embed_dim": 512, "quick_gelu": True,
             "vision_cfg": {"image_size": 64, "layers": 1, "width": 16, "head_width": 8, "patch_size": 32},
             "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sits", "on", "the", "mat", "##s"]
REAL_BERT = {
    "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
    "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert",
    "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0, "position_embedding_type": "absolute",
    "transformers_version": "4.6.0.dev0", "type_vocab_size": 2, "use_cache": True, "vocab_size": 30522}
REAL_DISTILBERT = {
    "activation": "gelu", "architectures": ["DistilBertForMaskedLM"], "attention_dropout": 0.1, "dim": 768,
    "dropout": 0.1, "hidden_dim": 3072, "initializer_range": 0.02, "max_position_embeddings": 512,
    "model_type": "distilbert", "n_heads": 12, "n_layers": 6, "pad_token_id": 0, "qa_dropout": 0.1,
    "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False, "tie_weights_": True,
    "transformers_version": "4.10.0.dev0", "vocab_size": 30522}
REAL_TOKENIZER = '{"do_lower_case": true, "model_max_length": 512}'
"""The small files of both as they are on the hub: a test compares their SHA-256."""
SMALL_BERT = REAL_BERT | {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2,
                          "num_attention_heads": 2, "intermediate_size": 32}
SMALL_DISTILBERT = REAL_DISTILBERT | {"vocab_size": len(WORDS), "dim": 16, "n_layers": 2, "n_heads": 2,
                                      "hidden_dim": 32}
BERT, DISTILBERT = BertConfig.from_dict(SMALL_BERT), DistilBertConfig.from_dict(SMALL_DISTILBERT)


def config_text(content: JSON) -> str:
    """Return a `config.json` as the hub has it."""
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def narrow_models(patch: pytest.MonkeyPatch) -> None:
    """Let the libraries build small models under the real names."""
    for name, channels in (("nfnet_l0", (256, 256, 256, 1536)), ("nf_resnet50", (16, 16, 16, 2048)),
                           ("nf_regnet_b1", nfnet.model_cfgs["nf_regnet_b1"].channels)):
        config = nfnet.model_cfgs[name]
        patch.setitem(nfnet.model_cfgs, name, dataclasses.replace(config, depths=(1, 1, 1, 1), channels=channels))
    build = vision_transformer._create_vision_transformer
    patch.setattr(vision_transformer, "_create_vision_transformer",
                  lambda variant, pretrained=False, **settings: build(variant, pretrained, **{**settings, "depth": 1}))
    patch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32-quickgelu", TINY_CLIP)


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Build a module whose library draws initial weights from the global stream, and leave that as it was.

    Tensors that start alike (normalisation, biases, gains that start at zero) are drawn too: else whether they were
    loaded would make no difference.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build().eval()
        with torch.no_grad():
            for tensor in module.parameters():
                if tensor.numel() and bool((tensor == tensor.flatten()[0]).all()):
                    tensor.add_(0.3 * torch.randn(tensor.shape))
    return module


def timm_model(encoder: str, **settings: int) -> nn.Module:
    return seeded(lambda: timm.create_model(CHECKPOINTS[encoder].architecture, pretrained=False, **settings))


def save(module: nn.Module, path: Path, rename: Callable[[str], str] = str) -> None:
    state = {rename(name): tensor.clone().contiguous() for name, tensor in module.state_dict().items()}
    save_file(state, path, metadata={"format": "pt"})


def write_timm(encoder: str, folder: Path) -> None:
    save(timm_model(encoder), folder / WEIGHTS)


def write_clip(encoder: str, folder: Path) -> None:
    save(seeded(lambda: open_clip.CLIP(**TINY_CLIP)), folder / OPEN_CLIP_WEIGHTS)


def _write_tokenizer(folder: Path) -> None:
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n")
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    vocabulary.unlink()


def write_bert(encoder: str, folder: Path) -> None:
    """As on the hub: with a prefix, and with the names that the first BERT gave to LayerNorm's weights."""
    _write_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text(REAL_TOKENIZER)
    (folder / "config.json").write_text(config_text(SMALL_BERT))
    save(seeded(lambda: BertForPreTraining(BERT)).bert, folder / WEIGHTS,
         lambda name: "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias",
                                                                                           "LayerNorm.beta"))


def write_bge(encoder: str, folder: Path) -> None:
    _write_tokenizer(folder)
    seeded(lambda: BertModel(BERT)).save_pretrained(folder)


def write_distilbert(encoder: str, folder: Path) -> None:
    _write_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text(REAL_TOKENIZER)
    (folder / "config.json").write_text(config_text(SMALL_DISTILBERT))
    save(seeded(lambda: DistilBertModel(DISTILBERT)), folder / WEIGHTS, lambda name: f"distilbert.{name}")


WRITERS = {"bert-base-uncased": write_bert, "distilbert-base-uncased": write_distilbert, "bge-base-en-v1.5": write_bge,
           "clip_vit_b32": write_clip}


def write(encoder: str, folder: Path) -> Checkpoint:
    """Write the files of an encoder into a folder; return the checkpoint that they are."""
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS.get(encoder, write_timm)(encoder, folder)
    real = CHECKPOINTS[encoder]
    for path in folder.iterdir():
        if path.name not in {file.name for file in real.files}:
            path.unlink()
    files = tuple(File(file.name, sha256(folder / file.name), (folder / file.name).stat().st_size)
                  for file in real.files)
    return dataclasses.replace(real, revision=REVISION, files=files, num_parameters=None)


def install(encoder: str, root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Put a small checkpoint where a fetch would, declare it as the encoder's, and return its folder."""
    narrow_models(patch)
    aside = root / "aside"
    checkpoint = write(encoder, aside)
    folder = snapshot(checkpoint, root)
    shutil.copytree(aside, folder, dirs_exist_ok=True)
    shutil.rmtree(aside)
    patch.setitem(CHECKPOINTS, encoder, checkpoint)
    return folder


def put(encoder: str, aside: Path, root: Path) -> None:
    """Put the files of an encoder that the table does not hold where a fetch would, and record them as it does."""
    checkpoint = checkpoint_of(encoder)
    files = {file.name: {"sha256": sha256(aside / file.name), "num_bytes": (aside / file.name).stat().st_size}
             for file in checkpoint.files}
    write_json(root / record_of(checkpoint), {"revision": REVISION, "files": files})
    shutil.copytree(aside, snapshot(dataclasses.replace(checkpoint, revision=REVISION), root))


def rewrite(path: Path, **changes: object) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
