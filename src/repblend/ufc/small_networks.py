"""Three architectures for images of a few pixels (the digits have 8x8), each trained in seconds on one core.

They differ in what the paper's teachers differ in: plain convolutions, residual blocks, and filters of single channels.
All have BatchNorm, whose statistics compensators match.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from repblend.ufc.cifar_networks import ConvNet, InvertedResidual

WIDTH = 32


def convnet(num_classes: int, image_size: int) -> nn.Module:
    """Two blocks of convolution, BatchNorm, ReLU and average pooling."""
    return ConvNet(num_classes, image_size, WIDTH, depth=2)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; half as many rows and columns come out if it strides."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                                          nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class MeanOverSpace(nn.Module):
    """(B, F, H, W) -> (B, F)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def resnet(num_classes: int, image_size: int) -> nn.Module:
    """A convolution and two residual blocks."""
    return nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(),
                         ResidualBlock(WIDTH, WIDTH, 1), ResidualBlock(WIDTH, 2 * WIDTH, 2), MeanOverSpace(),
                         nn.Linear(2 * WIDTH, num_classes))


def mobilenet(num_classes: int, image_size: int) -> nn.Module:
    """A convolution and three inverted residual blocks."""
    return nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(),
                         InvertedResidual(WIDTH, WIDTH, 2, 1), InvertedResidual(WIDTH, 2 * WIDTH, 2, 2),
                         InvertedResidual(2 * WIDTH, 2 * WIDTH, 2, 1), MeanOverSpace(),
                         nn.Linear(2 * WIDTH, num_classes))
