"""Depthwise convolutions: PyTorch's values bit for bit, and all derivatives where its own gradient is slow."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.nn import functional as F

from repblend.encoders.depthwise import Depthwise, _OnSmallMaps, depthwise

SHAPES = [(2, 5, 1, 2), (4, 5, 1, 2), (4, 5, 2, 2), (2, 3, 1, 1), (1, 3, 1, 1), (2, 5, 1, 4)]
"""Places of a side, of the filter, stride and padding: all of them maps smaller than their filters."""


def tensors(places: int, kernel: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(places + 10 * kernel)
    return tuple(torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()
                 for shape in ((3, 4, places, places), (4, 1, kernel, kernel), (4,)))  # type: ignore[return-value]


def own_kernel(value: Tensor) -> bool:
    return value.grad_fn is not None and type(value.grad_fn).__name__ == f"{_OnSmallMaps.__name__}Backward"


@pytest.mark.parametrize(("places", "kernel", "stride", "padding"), SHAPES)
def test_first_and_second_derivatives_are_those_of_differences(places: int, kernel: int, stride: int,
                                                               padding: int) -> None:
    images, weight, bias = tensors(places, kernel)
    assert own_kernel(depthwise(images, weight, bias, stride, padding))

    def convolve(*inputs: Tensor) -> Tensor:
        return depthwise(*inputs, stride, padding)

    assert gradcheck(convolve, (images, weight, bias), check_forward_ad=True)
    assert gradgradcheck(convolve, (images, weight, bias))


@pytest.mark.parametrize(("places", "kernel", "stride", "padding"), SHAPES)
def test_the_derivative_of_the_gradient_along_a_direction_is_that_of_pytorch(places: int, kernel: int, stride: int,
                                                                             padding: int) -> None:
    def forward_over_reverse(convolve: object) -> list[Tensor]:
        inputs = tensors(places, kernel)
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(value, value.detach().cos()) for value in inputs]
            slopes = torch.autograd.grad(convolve(*duals).sin().sum(), duals)  # type: ignore[operator]
            return [part for slope in slopes for part in forward_ad.unpack_dual(slope)]

    found = forward_over_reverse(lambda *inputs: depthwise(*inputs, stride, padding))
    expected = forward_over_reverse(lambda *inputs: F.conv2d(*inputs, stride, padding, groups=4))
    assert len(found) == 6
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("places", [2, 4, 5, 16])
def test_values_are_bit_for_bit_those_of_pytorch_on_small_maps_and_large(places: int) -> None:
    ours, theirs = Depthwise(6, 5, padding=2, bias=True), nn.Conv2d(6, 6, 5, padding=2, groups=6)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(8, 6, places, places, generator=torch.Generator().manual_seed(0))
    for layout in (torch.contiguous_format, torch.channels_last):
        shown = images.contiguous(memory_format=layout)
        assert torch.equal(ours(shown), theirs(shown))
        assert own_kernel(ours(shown)) == (places < 5)


def test_frozen_weights_and_missing_gradients_need_no_kernel_of_its_own() -> None:
    images, weight, bias = tensors(2, 5)
    assert not own_kernel(depthwise(images, weight.detach(), None, 1, 2))
    with torch.no_grad():
        assert not own_kernel(depthwise(images, weight, bias, 1, 2))
    frozen_images = depthwise(images.detach(), weight, None, 1, 2)
    expected = torch.autograd.grad(F.conv2d(images.detach(), weight, None, 1, 2, groups=4).square().sum(), weight)
    torch.testing.assert_close(torch.autograd.grad(frozen_images.square().sum(), weight), expected)
