"""Image encoders: features of normalised images, differentiable with respect to the pixels.

Frozen, as RepBlend uses them, or as functions of their own parameters in one flat vector, as the methods before it
train and match them (PAPER.md section 2: "LoRS matches the full image encoder").

Shapes: B images, H height and width, D features, P parameters.
"""

import copy
from collections.abc import Sequence

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.fusion import fuse_conv_bn_eval

FOLDABLE = (nn.Conv2d, Conv2dSame)
"""Convolutions that use their weights as they are. Others standardise them first, so nothing can be folded in."""


class ImageEncoder:
    """A frozen image encoder with what its inputs have to look like."""

    def __init__(self, module: nn.Module, feature_dim: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """Freeze a module for inference.

        Args:
            module: images (B, 3, H, H) -> features (B, D). It is copied, its BatchNorm layers folded into the
                convolutions before them and its weights laid out channels-last: the same function, two to four times
                faster on a CPU.
            feature_dim: D.
            mean: channel means that images are normalised with.
            std: channel standard deviations, likewise.

        Attributes:
            has_batch_norms: whether the module came with BatchNorm layers, so that its parameters are not all of it.
        """
        frozen = fold_batch_norms(copy.deepcopy(module).eval().requires_grad_(False))
        self._module = frozen.to(memory_format=torch.channels_last)
        self.feature_dim = feature_dim
        self.has_batch_norms = any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)
        self.device: torch.device | str = "cpu"

    def to(self, device: torch.device | str) -> "ImageEncoder":
        """Move the encoder to a device and return it; mean and standard deviation stay where pixels are read."""
        self._module, self.device = self._module.to(device), device
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Return features (B, D) of normalised images (B, 3, H, H); differentiable with respect to them."""
        return self._module(images.contiguous(memory_format=torch.channels_last))

    def parameters(self) -> Tensor:
        """Return the pre-trained parameters as a flat vector (P,) for `encode_with`.

        BatchNorm layers were folded into the convolutions, so their statistics are frozen in them. (The released code
        is run with encoders that have none.)
        """
        return self.flatten(list(self._module.parameters())).detach()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter in flat order, by its name in the module."""
        return {name: tuple(value.shape) for name, value in self._module.named_parameters()}

    def flatten(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the flat vector (P,) of tensors of these shapes."""
        return torch.cat([_channels_last_order(value).flatten() for value in tensors])

    def unflatten(self, flat: Tensor) -> list[Tensor]:
        """Return the tensors of a flat vector (P,), as views of it."""
        like = list(self._module.parameters())
        parts = flat.split([value.numel() for value in like])
        return [_restore(part, value) for part, value in zip(parts, like, strict=True)]

    def encode_with(self, images: Tensor, flat: Tensor) -> Tensor:
        """Return features (B, D) of normalised images (B, 3, H, H) under other parameters (P,).

        Differentiable twice in both; the derivative along a direction of the parameters may be taken as well.
        """
        parameters = dict(zip(self.shapes, self.unflatten(flat), strict=True))
        with sdpa_kernel(SDPBackend.MATH):  # of attention in one kernel there is no second derivative
            return torch.func.functional_call(self._module, parameters,
                                              (images.contiguous(memory_format=torch.channels_last),))


def _channels_last_order(value: Tensor) -> Tensor:
    """A convolution's weight (O, I, h, w) as (O, h, w, I), the order in which it is fastest; others as they are."""
    return value.movedim(1, -1) if value.dim() == 4 else value


def _restore(part: Tensor, like: Tensor) -> Tensor:
    """Undo `_channels_last_order` without a copy."""
    view = part.view(_channels_last_order(like).shape)
    return view.movedim(-1, 1) if like.dim() == 4 else view


def encode_in_chunks(encoder: ImageEncoder, images: Tensor, chunk: int) -> Tensor:
    """Return features (N, D) of images (N, 3, H, H), `chunk` at a time and without a graph, where the images are."""
    with torch.no_grad():
        return torch.cat([encoder.encode(part.to(encoder.device)).to(images.device) for part in images.split(chunk)])


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold each BatchNorm that directly follows a convolution into it, in place; exact for inference.

    "Follows" means the order in which a module declares its layers. That is the order in which they are applied in all
    the architectures that tests compare; `load_image_encoder` checks it for the rest.

    What a BatchNorm layer does besides normalising (timm's carry the activation) stays in its place.
    """
    previous_name, previous = "", None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and type(previous) in FOLDABLE:
            setattr(module, previous_name, fuse_conv_bn_eval(previous, child))
            setattr(module, name, getattr(child, "act", nn.Identity()))
        else:
            fold_batch_norms(child)
        previous_name, previous = name, child
    return module
