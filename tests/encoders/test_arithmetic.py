"""`compute.arithmetic: bf16` and `compute.compile` on a processor: a stage's encoder, forward and back to pixels."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from repblend.encoders.image import ImageEncoder
from repblend.matching.distillation import KeptGraph
from repblend.params import read_params
from repblend.stages import setup

PARAMS = Path(__file__).parents[2] / "params.yaml"


def small_network() -> nn.Module:
    draws, network = torch.Generator().manual_seed(0), nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, padding=1), nn.ReLU6(), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for value in network.parameters():
        value.data = 0.3 * torch.randn(value.shape, generator=draws)
    return network


def encoded(monkeypatch: pytest.MonkeyPatch, **compute: object) -> tuple[Tensor, Tensor]:
    """Features of five images and a gradient pulled back to them, by the encoder of a stage with such parameters."""
    monkeypatch.setattr(setup, "load_image_encoder",
                        lambda name, size: ImageEncoder(small_network(), 4, (0.5,) * 3, (0.5,) * 3))
    params = read_params(PARAMS)
    params = params.model_copy(update={"compute": params.compute.model_copy(update=compute)})
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    once = KeptGraph(images, torch.arange(5), setup.image_encoder_of(params).encode, 5)
    features = once.features()
    return features, once.pull_back(torch.ones_like(features))


def distance(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def test_bf16_is_float32_to_two_digits_and_the_same_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, *both = (encoded(monkeypatch, arithmetic=name) for name in ("float32", "bf16", "bf16"))
    found, again = both
    for value, same, truth in zip(found, again, exact, strict=True):
        assert value.dtype == torch.float32 and torch.equal(value, same)
        assert 1e-4 < distance(value, truth) < 3e-2  # half a unit in the last of 8 bits is 0.002


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_encoder_gives_the_same_features_and_pixel_gradients(monkeypatch: pytest.MonkeyPatch,
                                                                        tmp_path: Path) -> None:
    from torch._dynamo.utils import counters
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    counters.clear()
    exact = encoded(monkeypatch, compile=False)
    assert not counters["stats"]
    with config.patch({"compile_threads": 1, "cpp.vec_isa_ok": True, "cpp_cache_precompile_headers": False}):
        found = encoded(monkeypatch, compile=True)
    assert counters["stats"]["unique_graphs"] == 1
    for value, truth in zip(found, exact, strict=True):
        assert distance(value, truth) < 1e-5
