"""Networks by name: teachers and students of the unimodal pipeline.

`build` gives every one of them its own number of classes and input size. The CIFAR variants are for images of 32 pixels
and have the strides and the module names of the released ones, so that weights trained there load by name; a mean over
space stands for their pooling of the last 4x4 pixels, so that larger images work too. `torchvision-...` are
torchvision's for 224 pixels. `...-small` are three networks for images of a few pixels (the digits have 8x8), each
trained in seconds on one core; they differ in what the paper's teachers differ in: plain convolutions, residual blocks,
and filters of single channels. `...-strided` halve images of 16 pixels (the glyphs) first. All have BatchNorm, whose
statistics compensators match.

Shapes: B images of 3 channels, H and W pixels, F channels of a layer.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Builder = Callable[[int, int], nn.Module]
WIDTH = 32
"""Channels of the networks for images of a few pixels."""
SMALLEST = {"resnet": 8, "mobilenet_v2": 8, "efficientnet_b0": 16, "shufflenet_g2": 8, "convnet128": 8,
            "torchvision-": 32}
"""Start of a name -> the smallest image that its strides leave something of."""


def build(name: str, num_classes: int, image_size: int, generator: torch.Generator | None = None) -> nn.Module:
    """Return a network in training mode, from normalised float32 (B, 3, image_size, image_size) to logits (B, C).

    Args:
        name: one of `NETWORKS`.
        generator: where its initial weights come from; None if weights will be loaded.

    Raises:
        ValueError: there is no such network, or the image is too small for it.
    """
    if name not in NETWORKS:
        raise ValueError(f"network '{name}': expected one of {', '.join(NETWORKS)}")
    smallest = max((size for start, size in SMALLEST.items() if name.startswith(start)
                    and not name.endswith("-small")), default=4)
    if image_size < smallest:
        raise ValueError(f"network '{name}': expected images of at least {smallest} pixels, found {image_size}; take "
                         "another network or larger images")
    with drawing_from(generator or torch.Generator()):
        return NETWORKS[name](num_classes, image_size)


@contextlib.contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let torch's own draws (initial weights, dropout) come from a named stream within the body, and nowhere else."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
        yield


def _conv(channels_in: int, channels_out: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, size, stride, size // 2, groups=groups, bias=False)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, filter each channel, project; a shortcut unless it strides."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * channels_in
        self.conv1, self.bn1 = _conv(channels_in, width), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride, groups=width), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, channels_out), nn.BatchNorm2d(channels_out)
        self.has_shortcut = stride == 1
        self.shortcut = nn.Sequential()
        if self.has_shortcut and channels_in != channels_out:
            self.shortcut = nn.Sequential(_conv(channels_in, channels_out), nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return out + self.shortcut(x) if self.has_shortcut else out


class MobileNetV2(nn.Module):
    """Two strides fewer than for 224 pixels: in the first convolution and in the second stage."""

    STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    """Expansion, channels, blocks, stride of the first block."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 32, 3), nn.BatchNorm2d(32)
        blocks, width = [], 32
        for expansion, channels, num_blocks, stride in self.STAGES:
            for strides in (stride, *[1] * (num_blocks - 1)):
                blocks.append(InvertedResidual(width, channels, expansion, strides))
                width = channels
        self.layers = nn.Sequential(*blocks)
        self.conv2, self.bn2 = _conv(320, 1280), nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(F.relu(self.bn1(self.conv1(x))))
        out = F.relu(self.bn2(self.conv2(out)))
        return self.linear(out.mean((2, 3)))


class SqueezeExcitation(nn.Module):
    """Channels weighted by their means over space."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.se1, self.se2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.se2(F.silu(self.se1(x.mean((2, 3), keepdim=True)))).sigmoid()


class EfficientBlock(nn.Module):
    """EfficientNet's block. With an expansion of 1, conv1 and bn1 exist (weights name them) and never run.

    No path is dropped: the release means to, at a rate that grows with the depth, but never counts the depth up.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = expansion * channels_in
        self.expands = expansion != 1
        self.conv1, self.bn1 = _conv(channels_in, width), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, kernel, stride, groups=width), nn.BatchNorm2d(width)
        self.se = SqueezeExcitation(width, channels_in // 4)
        self.conv3, self.bn3 = _conv(width, channels_out), nn.BatchNorm2d(channels_out)
        self.has_shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        out = F.silu(self.bn1(self.conv1(x))) if self.expands else x
        out = self.se(F.silu(self.bn2(self.conv2(out))))
        out = self.bn3(self.conv3(out))
        return out + x if self.has_shortcut else out


class EfficientNetB0(nn.Module):
    """Without the last 1x1 convolution, and with a first convolution of stride 1, as in the released variant."""

    STAGES = ((1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2), (6, 112, 3, 5, 1),
              (6, 192, 4, 5, 2), (6, 320, 1, 3, 1))
    """Expansion, channels, blocks, kernel, stride of the first block."""
    DROPOUT = 0.2
    """Of the classifier's input."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 32, 3), nn.BatchNorm2d(32)
        blocks, width = [], 32
        for expansion, channels, num_blocks, kernel, stride in self.STAGES:
            for number in range(num_blocks):
                blocks.append(EfficientBlock(width, channels, kernel, stride if number == 0 else 1, expansion))
                width = channels
        self.layers = nn.Sequential(*blocks)
        self.linear = nn.Linear(320, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(F.silu(self.bn1(self.conv1(x)))).mean((2, 3))
        if self.training:  # dropout drawn on the CPU, from the stream that training sets: the same on every device
            out = out * torch.bernoulli(torch.full(out.shape, 1 - self.DROPOUT)).to(out) / (1 - self.DROPOUT)
        return self.linear(out)


class ShuffleBlock(nn.Module):
    """ShuffleNet's block: grouped 1x1, channels shuffled, 3x3 of each channel, grouped 1x1; joined if it strides."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, 1 if channels_in == 24 else groups  # the first block's input is too thin
        width = channels_out // 4
        self.conv1, self.bn1 = _conv(channels_in, width, groups=self.groups), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride, groups=width), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, channels_out, groups=groups), nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        out = shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        if self.stride == 1:
            return F.relu(out + x)
        return F.relu(torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], 1))


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of the groups."""
    batch, channels, height, width = x.shape
    return x.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


class ShuffleNetG2(nn.Module):
    """ShuffleNet (its first version) with two groups, a first convolution of 1x1 pixels and no pooling after it."""

    STAGES = ((200, 4), (400, 8), (800, 4))
    """Channels, blocks; the first block of each strides."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 24), nn.BatchNorm2d(24)
        width = 24
        for number, (channels, num_blocks) in enumerate(self.STAGES, 1):
            # A block that strides brings its input along, so its own channels are that many fewer.
            blocks = [ShuffleBlock(width, channels - width, 2, groups=2)]
            blocks += [ShuffleBlock(channels, channels, 1, groups=2) for _ in range(num_blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            width = channels
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        for number in range(1, 1 + len(self.STAGES)):
            out = self.get_submodule(f"layer{number}")(out)
        return self.linear(out.mean((2, 3)))


class ConvNet(nn.Module):
    """Blocks of convolution, BatchNorm, ReLU and average pooling; the paper's Table 1 has three of width 128."""

    def __init__(self, num_classes: int, image_size: int, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for number in range(depth):
            blocks += [nn.Conv2d(3 if number == 0 else width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
                       nn.AvgPool2d(2)]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * (image_size // 2**depth) ** 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; half as many rows and columns come out if it strides."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(channels_in, channels_out, 3, stride), nn.BatchNorm2d(channels_out)
        self.conv2, self.bn2 = _conv(channels_out, channels_out, 3), nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(_conv(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class MeanOverSpace(nn.Module):
    """(B, F, H, W) -> (B, F)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def _small(blocks: Callable[[], list[nn.Module]], num_classes: int, image_size: int, stride: int = 1) -> nn.Module:
    """A convolution and blocks that leave twice as many channels."""
    return nn.Sequential(_conv(3, WIDTH, 3, stride), nn.BatchNorm2d(WIDTH), nn.ReLU(), *blocks(),
                         MeanOverSpace(), nn.Linear(2 * WIDTH, num_classes))


def _residual_blocks() -> list[nn.Module]:
    return [ResidualBlock(WIDTH, WIDTH, 1), ResidualBlock(WIDTH, 2 * WIDTH, 2)]


def _inverted_residuals() -> list[nn.Module]:
    return [InvertedResidual(WIDTH, WIDTH, 2, 1), InvertedResidual(WIDTH, 2 * WIDTH, 2, 2),
            InvertedResidual(2 * WIDTH, 2 * WIDTH, 2, 1)]


def _torchvision(name: str, num_classes: int, image_size: int) -> nn.Module:
    import torchvision.models  # seconds, and the small networks need none of it

    return getattr(torchvision.models, name)(num_classes=num_classes)


def _cifar_resnet(depth: int, num_classes: int, image_size: int) -> nn.Module:
    """torchvision's, with a first convolution of 3x3 pixels and stride 1, and no pooling after it."""
    network = _torchvision(f"resnet{depth}", num_classes, image_size)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


NETWORKS: dict[str, Builder] = {
    **{f"resnet{depth}": partial(_cifar_resnet, depth) for depth in (18, 34, 50, 101)},
    "mobilenet_v2": lambda num_classes, image_size: MobileNetV2(num_classes),
    "efficientnet_b0": lambda num_classes, image_size: EfficientNetB0(num_classes),
    "shufflenet_g2": lambda num_classes, image_size: ShuffleNetG2(num_classes),
    "convnet128": ConvNet,
    **{f"torchvision-{name}": partial(_torchvision, name)
       for name in ("resnet18", "resnet50", "resnet101", "mobilenet_v2", "efficientnet_b0")},
    "convnet-small": partial(ConvNet, width=WIDTH, depth=2),
    "resnet-small": partial(_small, _residual_blocks),
    "mobilenet-small": partial(_small, _inverted_residuals),
    "resnet-strided": partial(_small, _residual_blocks, stride=2),
    "mobilenet-strided": partial(_small, _inverted_residuals, stride=2),
}
"""Name -> how to build it from the number of classes and the image size."""
