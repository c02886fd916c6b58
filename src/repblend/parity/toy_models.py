"""The tiny encoders of the recordings (parity/README.md section 1) and the heads as their files describe them."""

import math
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from repblend.encoders.heads import HeadSpec, apply_head
from repblend.matching.step import Tower
from repblend.parity.fixture import Fixture


def frozen_encoder(fixture: Fixture) -> Callable[[Tensor], Tensor]:
    """3x3 convolution, GELU, average pooling to 2x2, linear: images (B, 3, H, H) -> features (B, D)."""
    conv, conv_bias = fixture.tensor("enc_conv_weight"), fixture.tensor("enc_conv_bias")
    fc, fc_bias = fixture.tensor("enc_fc_weight"), fixture.tensor("enc_fc_bias")
    pool = fixture.integer("enc_pool")

    def encode(images: Tensor) -> Tensor:
        hidden = F.gelu(F.conv2d(images, conv, conv_bias, padding=1))
        return F.linear(F.avg_pool2d(hidden, pool).flatten(1), fc, fc_bias)

    return encode


def head_tower(fixture: Fixture, side: str) -> Tower:
    """The projection head of one side (`img` or `txt`), with the sizes that the file records."""
    spec = head_spec(fixture, f"{side}_param_shapes")
    return lambda inputs, flat: apply_head(inputs, flat, spec)


def head_spec(fixture: Fixture, shapes: str) -> HeadSpec:
    """The sizes of a head, from the recorded shape of its first matrix, (D, D_in)."""
    d, d_in = (int(size) for size in fixture.texts(shapes)[0].split(","))
    return HeadSpec(d_in, d)


def encoder_tower(fixture: Fixture) -> Tower:
    """The trained image encoder of the LoRS recordings: pixels -> features, its parameters the flat vector."""
    shapes = [[int(size) for size in shape.split(",")] for shape in fixture.texts("img_param_shapes")]
    pool = fixture.integer("enc_pool")

    def encode(images: Tensor, flat: Tensor) -> Tensor:
        conv1, bias1, conv2, bias2, fc, bias = _unflatten(flat, shapes)
        hidden = F.gelu(F.conv2d(images, conv1, bias1, padding=1))
        hidden = F.gelu(F.conv2d(hidden, conv2, bias2, stride=2, padding=1))
        return F.linear(F.avg_pool2d(hidden, pool).flatten(1), fc, bias)

    return encode


def _unflatten(flat: Tensor, shapes: list[list[int]]) -> list[Tensor]:
    sizes = [math.prod(shape) for shape in shapes]
    return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
