"""Networks: the published sizes, names that weights are loaded by, and initial weights from a stream alone."""

import pytest
import torch
from torch import nn

from repblend.streams import stream
from repblend.ufc.networks import NETWORKS, build

SMALL = [name for name in NETWORKS if name.endswith("-small")]
# Parameters for 10 classes, counted by hand or published for these architectures.
NUM_PARAMETERS = {"resnet18": 11_173_962, "convnet128": 320_010, "torchvision-resnet18": 5_130 + 11_176_512,
                  "torchvision-resnet50": 20_490 + 23_508_032, "torchvision-mobilenet_v2": 12_810 + 2_223_872}


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_sizes_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[name](10, 32)
    assert sum(parameter.numel() for parameter in network.parameters()) == NUM_PARAMETERS[name]


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0", "shufflenet_g2", *SMALL])
@pytest.mark.parametrize("image_size", [32, 64])
def test_every_network_gives_logits_of_its_classes(name: str, image_size: int) -> None:
    network = build(name, 7, image_size, stream(0, "tests")).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, image_size, image_size)).shape == (2, 7)


def test_small_networks_are_different_and_take_the_digits() -> None:
    assert len(SMALL) >= 3
    for name in SMALL:
        assert build(name, 10, 8, stream(0, "tests"))(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    kinds = [{type(module) for module in build(name, 10, 8).modules()} for name in SMALL]
    assert all(kinds.count(kind) == 1 for kind in kinds)


# BatchNorm layers: three in each of 17 blocks, two outside, four in shortcuts between widths; for the others three in
# each of 16 blocks and one outside.
@pytest.mark.parametrize(("name", "num_norms", "names"), [
    ("mobilenet_v2", 57, {"conv1.weight", "layers.0.shortcut.1.running_mean", "layers.16.conv2.weight", "conv2.weight",
                          "linear.bias"}),
    ("efficientnet_b0", 49, {"layers.0.bn1.weight", "layers.15.se.se1.weight", "linear.weight"}),
    ("shufflenet_g2", 49, {"layer1.3.conv1.weight", "layer3.0.bn3.bias", "linear.weight"})])
def test_cifar_variants_have_the_released_modules(name: str, num_norms: int, names: set[str]) -> None:
    network = build(name, 10, 32)
    assert names <= network.state_dict().keys()
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == num_norms


def test_the_layer_that_the_release_skips_never_runs() -> None:
    network, ran = build("efficientnet_b0", 10, 32).eval(), []
    norms = {module: name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for module in norms:
        module.register_forward_pre_hook(lambda module, _: ran.append(norms[module]))
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    assert [name for name in norms.values() if name not in ran] == [list(norms.values())[1]] == ["layers.0.bn1"]


def test_shuffling_interleaves_the_groups() -> None:
    from repblend.ufc.networks import shuffle

    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert shuffle(channels, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_initial_weights_come_from_the_stream_and_leave_torchs_own_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = build("convnet-small", 10, 8, stream(1, "tests"))
    assert torch.equal(torch.rand(3), expected)
    second, other = (build("convnet-small", 10, 8, stream(seed, "tests")) for seed in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_an_unknown_network_and_a_small_image_are_errors() -> None:
    with pytest.raises(ValueError, match="expected one of resnet18"):
        build("resnet19", 10, 32)
    with pytest.raises(ValueError, match="at least 16 pixels, found 8"):
        build("efficientnet_b0", 10, 8)
