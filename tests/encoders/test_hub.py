"""Checkpoints in the hub's layout: every declared encoder loads offline as the model it is, and only if whole."""

import hashlib
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import BertTokenizerFast, DistilBertModel
from transformers.models.bert.modeling_bert import BertForPreTraining, BertModel

from repblend.encoders import hub
from repblend.encoders import hub as pins
from repblend.encoders.hub import CHECKPOINTS, WEIGHTS, Checkpoint, File, checkpoint_of
from repblend.encoders.registry import IMAGE_ENCODERS, load_image_encoder, load_text_encoder
from repblend.params import read_params
from repblend.records.base import HubCheckpoint
from repblend.store import sha256, write_json
from tests import checkpoints
from tests.checkpoints import install

ROOT = Path(__file__).parents[2]
CAPTIONS = ["a cat", "the dogs sits on the mat", "cat"]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository's root to run in, and no hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty-cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def some_images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.shape == expected.shape and bool((found - expected).abs().max() < 1e-4 * expected.abs().max())


@pytest.mark.parametrize("encoder", ["nfnet_l0", "nf_resnet50", "nf_regnet_b1"])
def test_normalizer_free_networks_give_the_mean_of_their_last_map(encoder: str, workspace: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    install(encoder, workspace, monkeypatch)
    with torch.no_grad():
        maps = checkpoints.timm_model(encoder).forward_features(some_images(64))  # (2, D, 2, 2)
    assert maps.shape[1:] == (IMAGE_ENCODERS[encoder].feature_dim, 2, 2) and maps.std() > 1e-3
    assert close(load_image_encoder(encoder, 64).encode(some_images(64)), maps.mean((2, 3)))


def test_vit_tiny_gives_scores_as_released_and_features_under_a_name_of_its_own(workspace: Path,
                                                                                monkeypatch: pytest.MonkeyPatch
                                                                                ) -> None:
    for encoder in ("vit_tiny_patch16_224", "vit_tiny_patch16_224_pooled"):
        install(encoder, workspace, monkeypatch)
    module, images = checkpoints.timm_model("vit_tiny_patch16_224"), some_images(224)
    with torch.no_grad():
        features = module.forward_features(images)[:, 0]  # the class token
        scores = features @ module.head.weight.T + module.head.bias
    assert close(load_image_encoder("vit_tiny_patch16_224", 224).encode(images), scores)
    assert close(load_image_encoder("vit_tiny_patch16_224_pooled", 224).encode(images), features)
    assert (scores.shape[1], features.shape[1]) == (1000, 192)


def test_dino_gives_its_class_token(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("dino_vit_b16", workspace, monkeypatch)
    with torch.no_grad():
        expected = checkpoints.timm_model("dino_vit_b16").forward_features(some_images(224))[:, 0]
    assert close(load_image_encoder("dino_vit_b16", 224).encode(some_images(224)), expected)


def resampled(grid: torch.Tensor, size: int) -> torch.Tensor:
    """Pillow's bicubic resampling of every channel of (H, W, D), to (size, size, D)."""
    channels = [np.asarray(Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC))
                for channel in grid.movedim(-1, 0).contiguous().numpy()]
    return torch.from_numpy(np.stack(channels, axis=-1))


def test_dinov2_made_for_518_pixels_takes_224_with_resampled_positions(workspace: Path,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install("dinov2_vit_b14", workspace, monkeypatch)
    state = load_file(folder / WEIGHTS)
    of_class, of_patches = state["pos_embed"][:, :1], state["pos_embed"][0, 1:]
    assert of_patches.shape == (37 * 37, 768)
    positions = resampled(of_patches.view(37, 37, 768), 16).view(1, 256, 768)
    module = timm.create_model(CHECKPOINTS["dinov2_vit_b14"].architecture, img_size=224).eval()
    module.load_state_dict(state | {"pos_embed": torch.cat([of_class, positions], dim=1)})
    with torch.no_grad():
        expected = module.forward_features(some_images(224))[:, 0]
    assert close(load_image_encoder("dinov2_vit_b14", 224).encode(some_images(224)), expected)


def test_clip_gives_both_towers_with_the_quick_gelu_it_was_trained_with(workspace: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    install("clip_vit_b32", workspace, monkeypatch)
    reference = checkpoints.seeded(lambda: open_clip.CLIP(**checkpoints.TINY_CLIP))
    assert type(reference.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    with torch.no_grad():
        images, texts = reference.encode_image(some_images(64)), reference.encode_text(open_clip.tokenize(CAPTIONS))
    assert close(load_image_encoder("clip_vit_b32", 64).encode(some_images(64)), images)
    assert close(load_text_encoder("clip_vit_b32").encode(CAPTIONS), texts)


def test_a_repository_of_timms_own_is_built_by_its_name(workspace: Path) -> None:
    module = checkpoints.seeded(lambda: timm.create_model("test_resnet"))
    (workspace / "aside").mkdir()
    checkpoints.save(module, workspace / "aside" / WEIGHTS)
    checkpoints.put("timm:test_resnet.r160_in1k", workspace / "aside", workspace)
    with torch.no_grad():
        expected = module.forward_features(some_images(64)).mean((2, 3))
    assert close(load_image_encoder("timm:test_resnet.r160_in1k", 64).encode(some_images(64)), expected)


def test_another_open_clip_repository_is_built_by_its_own_configuration(workspace: Path) -> None:
    config = {"model_cfg": checkpoints.TINY_CLIP, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (workspace / "aside").mkdir()
    (workspace / "aside/open_clip_config.json").write_text(json.dumps(config))
    checkpoints.write_clip("", workspace / "aside")
    checkpoints.put("open_clip:owner/tiny", workspace / "aside", workspace)
    reference = checkpoints.seeded(lambda: open_clip.CLIP(**checkpoints.TINY_CLIP))
    with torch.no_grad():
        images, texts = reference.encode_image(some_images(64)), reference.encode_text(open_clip.tokenize(CAPTIONS))
    assert close(load_image_encoder("open_clip:owner/tiny", 64).encode(some_images(64)), images)
    assert close(load_text_encoder("open_clip:owner/tiny").encode(CAPTIONS), texts)


def last_layer(module: torch.nn.Module, folder: Path) -> torch.Tensor:
    """States of all captions at once, with padding: (B, T, D)."""
    batch = BertTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))(CAPTIONS, padding=True,
                                                                             return_tensors="pt")
    with torch.no_grad():
        return module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state


def test_bert_gives_its_class_token_under_the_names_of_the_first_release(workspace: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install("bert-base-uncased", workspace, monkeypatch)
    assert any("LayerNorm.gamma" in name for name in load_file(folder / WEIGHTS))
    module = checkpoints.seeded(lambda: BertForPreTraining(checkpoints.BERT)).bert
    found = load_text_encoder("bert-base-uncased").encode(CAPTIONS)
    assert close(found, last_layer(module, folder)[:, 0])
    assert not torch.allclose(found.norm(dim=1), torch.ones(3), atol=0.1)


def test_distilbert_gives_its_class_token(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install("distilbert-base-uncased", workspace, monkeypatch)
    module = checkpoints.seeded(lambda: DistilBertModel(checkpoints.DISTILBERT))
    assert close(load_text_encoder("distilbert-base-uncased").encode(CAPTIONS), last_layer(module, folder)[:, 0])


def test_the_released_bge_gives_its_class_token_as_it_is(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("bge-base-en-v1.5", workspace, monkeypatch)
    found = load_text_encoder("bge-base-en-v1.5_first-token").encode(CAPTIONS)
    lengths = found.norm(dim=-1, keepdim=True)
    assert (lengths - 1).abs().min() > 0.1
    assert close(found / lengths, load_text_encoder("bge-base-en-v1.5").encode(CAPTIONS))


def test_bge_gives_its_class_token_at_length_one(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install("bge-base-en-v1.5", workspace, monkeypatch)
    token = last_layer(checkpoints.seeded(lambda: BertModel(checkpoints.BERT)), folder)[:, 0].numpy()
    expected = token / np.sqrt((token**2).sum(axis=1, keepdims=True))
    assert close(load_text_encoder("bge-base-en-v1.5").encode(CAPTIONS), torch.from_numpy(expected))


def test_weights_of_half_precision_are_used_as_float32(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install("bge-base-en-v1.5", workspace, monkeypatch)
    BertModel.from_pretrained(folder).half().save_pretrained(folder)
    declare_as_found("bge-base-en-v1.5", folder, monkeypatch)
    assert load_text_encoder("bge-base-en-v1.5").encode(CAPTIONS).dtype == torch.float32


def declare_as_found(encoder: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let the table expect the bytes that are there."""
    declared = CHECKPOINTS[encoder]
    files = tuple(File(file.name, sha256(folder / file.name)) for file in declared.files)
    patch.setitem(CHECKPOINTS, encoder, Checkpoint(declared.repository, declared.revision, files,
                                                   declared.architecture))


def test_features_repeat_to_the_bit(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("nf_regnet_b1", workspace, monkeypatch)
    first, second = (load_image_encoder("nf_regnet_b1", 64).encode(some_images(64)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json"])
def test_a_damaged_file_is_refused_before_anything_is_read(name: str, workspace: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    path = install("bert-base-uncased", workspace, monkeypatch) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=rf"{path}: SHA-256 is [0-9a-f]{{64}}, expected .* "
                                         r"`repro checkpoints fetch bert-base-uncased`"):
        load_text_encoder("bert-base-uncased")


@pytest.mark.parametrize("encoder", ["nf_regnet_b1", "clip_vit_b32"])
def test_a_missing_file_is_named_with_the_command_that_fetches_it(encoder: str, workspace: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    path, = install(encoder, workspace, monkeypatch).iterdir()
    path.unlink()
    with pytest.raises(ValueError, match=rf"cannot load '{encoder}': {path}: no such file.*"
                                         rf"`repro checkpoints fetch {encoder}`"):
        load_image_encoder(encoder, 64)


def test_weights_that_do_not_fill_the_model_are_refused(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install("bge-base-en-v1.5", workspace, monkeypatch)
    checkpoints.rewrite(folder / "config.json", num_hidden_layers=3)
    declare_as_found("bge-base-en-v1.5", folder, monkeypatch)
    with pytest.raises(ValueError, match=r"lack \d+ tensors of the model that its config.json describes"):
        load_text_encoder("bge-base-en-v1.5")


def test_a_pickle_in_a_local_folder_is_not_read(workspace: Path) -> None:
    torch.save({}, workspace / "pytorch_model.bin")
    (workspace / "config.json").write_text(json.dumps({"architecture": "test_resnet"}))
    with pytest.raises(ValueError, match=r"model\.safetensors: no such file; expected the weights as safetensors"):
        load_image_encoder(f"timm:local-dir:{workspace}", 64)


def test_what_the_table_leaves_open_is_taken_from_the_record(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("nf_regnet_b1", workspace, monkeypatch)
    known = CHECKPOINTS["nf_regnet_b1"]
    open_ones = Checkpoint(known.repository, None, (File(WEIGHTS),), known.architecture)
    monkeypatch.setitem(CHECKPOINTS, "nf_regnet_b1", open_ones)
    with pytest.raises(ValueError, match=r"ra2_in1k\.json: no such file, and nothing else says the commit"):
        load_image_encoder("nf_regnet_b1", 64)
    write_json(workspace / "conf/checkpoints/timm--nf_regnet_b1.ra2_in1k.json", {
        "revision": known.revision, "files": {WEIGHTS: {"sha256": known.files[0].sha256, "num_bytes": 1}}})
    assert load_image_encoder("nf_regnet_b1", 64).feature_dim == 960


def test_a_record_never_overrules_the_table() -> None:
    declared = CHECKPOINTS["bge-base-en-v1.5"]
    record = {"revision": "f" * 40, "files": {WEIGHTS: {"sha256": "0" * 64, "num_bytes": 1}}}
    assert declared.completed(record) == declared


def test_a_profiles_workspace_finds_the_checkpoints_of_the_repository(workspace: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    install("nf_regnet_b1", workspace, monkeypatch)
    below = workspace / "profiles" / "flickr30k"
    below.mkdir(parents=True)
    (workspace / "src" / "repblend").mkdir(parents=True)
    monkeypatch.chdir(below)
    assert load_image_encoder("nf_regnet_b1", 64).feature_dim == 960


def test_provenance_names_the_bytes_of_encoders_from_the_hub_alone(workspace: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    path = install("nf_regnet_b1", workspace, monkeypatch) / WEIGHTS
    found = hub.checkpoints_used(["efficientnet_lite0", "nf_regnet_b1", "timm:local-dir:/somewhere"], workspace)
    assert found == {"nf_regnet_b1": HubCheckpoint(
        repository="timm/nf_regnet_b1.ra2_in1k", revision=checkpoints.REVISION, sha256={WEIGHTS: sha256(path)})}


@pytest.mark.parametrize("encoder", [name for name, each in CHECKPOINTS.items() if each.num_parameters])
def test_a_declared_size_is_that_of_the_architecture(encoder: str) -> None:
    declared = CHECKPOINTS[encoder]
    with torch.device("meta"):
        state = timm.create_model(declared.architecture).state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == declared.num_parameters
    header = declared.num_bytes - 4 * declared.num_parameters
    assert 0 <= header < 100_000  # the weights file's own list of its tensors


def test_the_small_files_of_bert_have_the_declared_hashes() -> None:
    for encoder, name, text in (
            ("bert-base-uncased", "config.json", checkpoints.config_text(checkpoints.REAL_BERT)),
            ("distilbert-base-uncased", "config.json", checkpoints.config_text(checkpoints.REAL_DISTILBERT)),
            ("bert-base-uncased", "tokenizer_config.json", checkpoints.REAL_TOKENIZER),
            ("distilbert-base-uncased", "tokenizer_config.json", checkpoints.REAL_TOKENIZER)):
        declared = next(file for file in CHECKPOINTS[encoder].files if file.name == name)
        assert (hashlib.sha256(text.encode()).hexdigest(), len(text)) == (declared.sha256, declared.num_bytes)


def test_the_table_holds_commits_and_hashes_of_the_right_form() -> None:
    for checkpoint in CHECKPOINTS.values():
        assert checkpoint.revision is None or (len(checkpoint.revision) == 40 and int(checkpoint.revision, 16))
        for file in checkpoint.files:
            assert file.sha256 is None or (len(file.sha256) == 64 and int(file.sha256, 16))
    assert CHECKPOINTS.keys() <= IMAGE_ENCODERS.keys() | {"bert-base-uncased", "distilbert-base-uncased",
                                                          "bge-base-en-v1.5", "bge-base-en-v1.5_first-token"}


@pytest.mark.parametrize(("encoder", "repository", "architecture"), [
    ("timm:resnet18.a1_in1k", "timm/resnet18.a1_in1k", "resnet18.a1_in1k"), ("timm:owner/name", "owner/name", None),
    ("timm:hf-hub:owner/name", "owner/name", None), ("transformers:owner/name", "owner/name", None),
    ("open_clip:hf-hub:owner/name", "owner/name", None)])
def test_other_names_lead_to_their_repository(encoder: str, repository: str, architecture: str | None) -> None:
    found = checkpoint_of(encoder)
    assert (found.repository, found.architecture, found.is_pinned) == (repository, architecture, False)
    assert all(name in {file.name for file in found.files} for name in [pins.WEIGHTS] if "clip" not in encoder)


@pytest.mark.parametrize("encoder", ["efficientnet_lite0", "all-MiniLM-L6-v2", "timm:local-dir:/a", "transformers:/a",
                                     "open_clip:local-dir:/a"])
def test_packages_and_local_folders_lead_to_no_repository(encoder: str) -> None:
    assert checkpoint_of(encoder) is None


def test_the_committed_parameters_need_nothing_from_the_hub() -> None:
    params = read_params(ROOT / "params.yaml")
    names = [params.encode.image_encoder, params.encode.text_encoder, *params.transfer.architectures]
    assert hub.checkpoints_used(names, ROOT) == {}
