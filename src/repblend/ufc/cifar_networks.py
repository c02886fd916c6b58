"""MobileNetV2, EfficientNet-B0, ShuffleNet (two groups) and ConvNet128 for images of 32 pixels, as in the release.

Strides are those of the released variants; the mean over space stands for their pooling of what is left (4x4 pixels),
so that larger images work too. Module names are the released ones, so that weights load by name.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
            for number in range(num_blocks):
                blocks.append(InvertedResidual(width, channels, expansion, stride if number == 0 else 1))
                width = channels
        self.layers = nn.Sequential(*blocks)
        self.conv2, self.bn2 = _conv(320, 1280), nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(F.relu(self.bn1(self.conv1(x))))
        out = F.relu(self.bn2(self.conv2(out)))
        return self.linear(out.mean((2, 3)))


class SqueezeExcitation(nn.Module):
    """Channels weighted by what all of space says."""

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
        return self.linear(_dropout(out, self.DROPOUT) if self.training else out)


def _dropout(x: Tensor, share: float) -> Tensor:
    """Dropout drawn on the CPU, from the generator that training sets: the same units on every device."""
    return x * torch.bernoulli(torch.full(x.shape, 1 - share)).to(x) / (1 - share)


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
        out = _shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        if self.stride == 1:
            return F.relu(out + x)
        return F.relu(torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], 1))


def _shuffle(x: Tensor, groups: int) -> Tensor:
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
        for layer in (self.layer1, self.layer2, self.layer3):
            out = layer(out)
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


def mobilenet_v2(num_classes: int, image_size: int) -> nn.Module:
    return MobileNetV2(num_classes)


def efficientnet_b0(num_classes: int, image_size: int) -> nn.Module:
    return EfficientNetB0(num_classes)


def shufflenet_g2(num_classes: int, image_size: int) -> nn.Module:
    return ShuffleNetG2(num_classes)


def convnet128(num_classes: int, image_size: int) -> nn.Module:
    return ConvNet(num_classes, image_size)
