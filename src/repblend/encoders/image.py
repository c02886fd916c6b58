"""Image encoders: features of normalised images, differentiable with respect to the pixels.

Frozen, as RepBlend uses them, or as functions of their own parameters in one flat vector, as the methods before it
(MTT-VL, TESLA-VL, LoRS) train and match them.

Shapes: B images, H height and width, D features, P parameters.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.fusion import fuse_conv_bn_eval

FOLDABLE = ("Conv2d", "Conv2dSame", "Depthwise")
"""Names of convolutions that use their weights as they are: PyTorch's, timm's (which is not imported for this) and
ours. Others standardise their weights first, so nothing can be folded into them."""


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
        self._bf16, self._function = False, cast(Callable[[Tensor], Tensor], self._module)

    def to(self, device: torch.device | str, bf16: bool = False, compiled: bool = False) -> Self:
        """Move the encoder to a device and return it; mean and standard deviation stay where pixels are read.

        Args:
            bf16: compute in bfloat16 by autocast; features stay in the images' type.
            compiled: encode by what `torch.compile` makes of it; under other parameters it computes as it is.
        """
        self._module, self.device, self._bf16 = self._module.to(device), device, bf16
        self._function = torch.compile(self._module) if compiled else self._module
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Return features (B, D) of normalised images (B, 3, H, H); differentiable with respect to them."""
        with autocast(self.device, self._bf16):
            features = self._function(images.contiguous(memory_format=torch.channels_last))
        return features.to(images.dtype)

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
        ordered = [part.view(_channels_last_order(value).shape) for part, value in zip(parts, like, strict=True)]
        return [part.movedim(-1, 1) if part.dim() == 4 else part for part in ordered]

    def encode_with(self, images: Tensor, flat: Tensor) -> Tensor:
        """Return features (B, D) of normalised images (B, 3, H, H) under other parameters (P,).

        Differentiable twice in both; the derivative along a direction of the parameters may be taken as well.
        """
        parameters = dict(zip(self.shapes, self.unflatten(flat), strict=True))
        # Of attention in one kernel there is no second derivative.
        with sdpa_kernel(SDPBackend.MATH), autocast(self.device, self._bf16):
            features: Tensor = torch.func.functional_call(self._module, parameters,
                                                          (images.contiguous(memory_format=torch.channels_last),))
        return features.to(images.dtype)


def autocast(device: torch.device | str, enabled: bool) -> torch.autocast:
    """Return the context in which products are taken in bfloat16, or, if not enabled, as they are."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def _channels_last_order(value: Tensor) -> Tensor:
    """A convolution's weight (O, I, h, w) as (O, h, w, I), the order in which it is fastest; others as they are."""
    return value.movedim(1, -1) if value.dim() == 4 else value


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
    previous_name, previous = "", nn.Module()
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and type(previous).__name__ in FOLDABLE:
            setattr(module, previous_name, fuse_conv_bn_eval(cast(nn.Conv2d, previous), child))
            setattr(module, name, getattr(child, "act", nn.Identity()))
        else:
            fold_batch_norms(child)
        previous_name, previous = name, child
    return module
