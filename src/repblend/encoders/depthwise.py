"""Depthwise convolutions: `nn.Conv2d` bit for bit, but for the gradient of their weights on maps of a few places.

There PyTorch's takes up to a hundred times as long as the forward pass on a processor: its library has no fast kernel
where a map is smaller than the filter (2 x 2 and 4 x 4 places under 5 x 5 weights, 2 x 2 under 3 x 3: seven layers of
EfficientNet-Lite0 where images have 64 pixels). The same sum is a depthwise convolution of the images by the slopes,
each image and channel on its own, which has one.

Shapes: B images, C channels, H x H places before and O x O after, k x k weights.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Depthwise(nn.Conv2d):
    """A convolution of every channel by weights of its own, (B, C, H, H) -> (B, C, O, O)."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = False) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return what `nn.Conv2d` returns; its derivatives are functions of the same values."""
        return depthwise(images, self.weight, self.bias, self.stride[0], int(self.padding[0]))


def depthwise(images: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Return `F.conv2d(images, weight, bias, stride, padding, groups=C)`, with the faster gradient where that pays.

    Args:
        images: (B, C, H, H).
        weight: (C, 1, k, k).
        bias: (C,), or none.
    """
    differentiated = torch.is_grad_enabled() and weight.requires_grad
    if differentiated and images.device.type == "cpu" and min(images.shape[-2:]) < weight.shape[-1]:
        found: Tensor = _OnSmallMaps.apply(images, weight, bias, stride, padding)
        return found
    return F.conv2d(images, weight, bias, stride, padding, groups=len(weight))


class _OnSmallMaps(torch.autograd.Function):
    """The same convolution. All parts of its derivatives are differentiable, so it is so as often as one likes."""

    @staticmethod
    def forward(images: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        return F.conv2d(images, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, weight, _, context.stride, context.padding = inputs
        context.save_for_backward(images, weight)
        context.save_for_forward(images, weight)
        context.set_materialize_grads(False)

    @staticmethod
    def backward(context: Any, slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        of_images = of_weight = of_bias = None
        if slopes is not None:
            (images, weight), (stride, padding) = context.saved_tensors, (context.stride, context.padding)
            for_images, for_weight, for_bias = context.needs_input_grad[:3]
            if for_images:
                of_images = _slopes_of_images(slopes, images, weight, stride, padding)
            if for_weight:
                of_weight = _slopes_of_weight(slopes, images, weight.shape[-1], stride, padding)
            if for_bias:
                of_bias = slopes.sum((0, 2, 3))
        return of_images, of_weight, of_bias, None, None

    @staticmethod
    def jvp(context: Any, along_images: Tensor | None, along_weight: Tensor | None, along_bias: Tensor | None,
            *_: None) -> Tensor:
        images, weight = context.saved_tensors
        parts = [F.conv2d(left, right, None, context.stride, context.padding, groups=len(weight))
                 for left, right in ((along_images, weight), (images, along_weight))
                 if left is not None and right is not None]
        if along_bias is not None:
            parts.append(along_bias[:, None, None])
        return sum(parts[1:], start=parts[0])


def _slopes_of_images(slopes: Tensor, images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    found: Tensor = torch.ops.aten.convolution_backward(
        slopes, images, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight),
        [True, False, False])[0]
    return found


def _slopes_of_weight(slopes: Tensor, images: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    num, channels, *places = images.shape
    side_by_side = images.permute(2, 3, 0, 1).reshape(1, *places, num * channels)  # channels last, which is faster
    each = F.conv2d(side_by_side.permute(0, 3, 1, 2), slopes.reshape(num * channels, 1, *slopes.shape[2:]),
                    padding=padding, dilation=stride, groups=num * channels)
    return each[0, :, :kernel, :kernel].reshape(num, channels, kernel, kernel).sum(0).unsqueeze(1)
