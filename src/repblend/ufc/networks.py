"""Networks by name: teachers and students of the unimodal pipeline.

`build` gives every one of them its own number of classes and input size. The CIFAR variants
(`repblend.ufc.cifar_networks`) keep the module names of the released ones, so that weights trained there load here;
`torchvision-...` are torchvision's for 224 pixels; `...-small` are for images of a few pixels (`small_networks`).
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from repblend.ufc import cifar_networks, small_networks

Builder = Callable[[int, int], nn.Module]
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


def _cifar_resnet(depth: int, num_classes: int, image_size: int) -> nn.Module:
    """torchvision's, with a first convolution of 3x3 pixels and stride 1, and no pooling after it."""
    network = _torchvision_builder(f"resnet{depth}")(num_classes=num_classes)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def _torchvision(name: str, num_classes: int, image_size: int) -> nn.Module:
    return _torchvision_builder(name)(num_classes=num_classes)


def _torchvision_builder(name: str) -> Callable[..., nn.Module]:
    import torchvision.models  # seconds, and the small networks need none of it

    return getattr(torchvision.models, name)


NETWORKS: dict[str, Builder] = {
    **{f"resnet{depth}": partial(_cifar_resnet, depth) for depth in (18, 34, 50, 101)},
    "mobilenet_v2": cifar_networks.mobilenet_v2,
    "efficientnet_b0": cifar_networks.efficientnet_b0,
    "shufflenet_g2": cifar_networks.shufflenet_g2,
    "convnet128": cifar_networks.convnet128,
    **{f"torchvision-{name}": partial(_torchvision, name)
       for name in ("resnet18", "resnet50", "resnet101", "mobilenet_v2", "efficientnet_b0")},
    "convnet-small": small_networks.convnet,
    "resnet-small": small_networks.resnet,
    "mobilenet-small": small_networks.mobilenet,
}
"""Name -> how to build it from the number of classes and the image size."""
