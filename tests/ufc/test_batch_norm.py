"""The BatchNorm loss against twins in float64: hooks, as the definition reads."""

import pytest
import torch
from torch import Tensor, nn

from repblend.streams import stream
from repblend.ufc.networks import build
from repblend.ufc.objective import MeasuredLayers, Statistics, pool
from tests.ufc.small import network


def twin(net: nn.Module, inputs: Tensor, first_weight: float, skipped: tuple[int, ...] = ()) -> Tensor:
    """The definition, one group at a time: what every layer receives, by hooks."""
    terms, handles = [], []

    def note(layer: nn.BatchNorm2d, received: tuple[Tensor]) -> None:
        values = received[0].transpose(0, 1).flatten(1)
        mean = values.sum(1) / values.shape[1]
        var = ((values - mean[:, None]) ** 2).sum(1) / values.shape[1]
        terms.append(((var - layer.running_var) ** 2).sum().sqrt() + ((mean - layer.running_mean) ** 2).sum().sqrt())

    chosen = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    chosen = [layer for number, layer in enumerate(chosen) if number not in skipped]
    handles = [layer.register_forward_pre_hook(note) for layer in chosen]
    net(inputs)
    for handle in handles:
        handle.remove()
    return first_weight * terms[0] + sum(terms[1:])


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("skipped", [(), (1,), (0,)])
def test_loss_and_gradient_of_every_group_are_those_of_the_definition(skipped: tuple[int, ...]) -> None:
    net, groups = network(), images(3, 4, 3, 6, 5)
    layers = MeasuredLayers(net, skipped)
    batch = groups.flatten(0, 1).requires_grad_()
    with layers.measuring(3) as found:
        logits = net(batch)
    loss = layers.loss(found, 10.0)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    gradient, = torch.autograd.grad((loss * weights).sum() + logits.square().sum(), batch)

    leaf = groups.clone().requires_grad_()
    expected = torch.stack([twin(net, leaf[number], 10.0, skipped) for number in range(3)])
    plain, = torch.autograd.grad((expected * weights).sum() + net(leaf.flatten(0, 1)).square().sum(), leaf)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, plain.flatten(0, 1), rtol=1e-10, atol=1e-12)


def test_outputs_are_the_networks_own_and_the_network_is_left_as_it_was() -> None:
    net, batch = network(), images(6, 3, 6, 5)
    with MeasuredLayers(net).measuring(2):
        measured = net(batch)
    torch.testing.assert_close(measured, net(batch), rtol=1e-12, atol=1e-12)
    assert all("forward" not in vars(layer) for layer in net)


@pytest.mark.parametrize(("architecture", "size", "skipped"), [
    ("resnet18", 8, ()), ("mobilenet_v2", 8, ()), ("efficientnet_b0", 16, (1,)), ("shufflenet_g2", 8, ()),
    ("torchvision-mobilenet_v2", 32, ())])
def test_teachers_of_the_paper_are_measured_as_defined(architecture: str, size: int, skipped: tuple[int, ...]) -> None:
    net = build(architecture, 5, size, stream(0, "tests")).double().eval().requires_grad_(False)
    groups = images(2, 3, 3, size, size)
    layers, leaf, batch = MeasuredLayers(net, skipped), groups.clone().requires_grad_(), groups.clone().requires_grad_()
    with layers.measuring(2) as found:
        logits = net(batch.flatten(0, 1))
    gradient, = torch.autograd.grad(layers.loss(found, 10.0).sum() + logits.square().sum(), batch)
    expected = sum(twin(net, leaf[number], 10.0, skipped) for number in range(2))
    plain, = torch.autograd.grad(expected + net(leaf.flatten(0, 1)).square().sum(), leaf)
    torch.testing.assert_close(layers.loss(found, 10.0).sum(), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, plain, rtol=1e-7, atol=1e-9)


def test_single_precision_holds_for_means_far_from_zero() -> None:
    double, single = network(), network(dtype=torch.float32)
    batch = images(8, 3, 6, 5) + 5
    layers = MeasuredLayers(single)
    with layers.measuring(1) as found:
        single(batch.float())
    torch.testing.assert_close(layers.loss(found, 10.0)[0].double(), twin(double, batch, 10.0), rtol=1e-4, atol=0)


def test_parts_pool_to_the_whole() -> None:
    values = images(2, 9, 4)  # 2 groups, 9 values, 4 channels
    parts = [values[:, :2], values[:, 2:]]
    found = pool([Statistics(part.mean(1), part.var(1, unbiased=False)) for part in parts], [2 / 9, 7 / 9])
    torch.testing.assert_close(found.mean, values.mean(1))
    torch.testing.assert_close(found.var, values.var(1, unbiased=False))


def test_a_layer_that_never_runs_is_named() -> None:
    net = network()
    net.add_module("idle", nn.Identity())
    net.idle.norm = nn.BatchNorm2d(2).double()
    layers = MeasuredLayers(net)
    with layers.measuring(1) as found:
        net(images(2, 3, 6, 5))
    with pytest.raises(ValueError, match=r"idle\.norm .*skipped_layers"):
        layers.loss(found, 10.0)
    assert MeasuredLayers(net, [2]).layers.keys() == {"1", "4"}


def test_a_layer_that_does_not_exist_cannot_be_skipped() -> None:
    with pytest.raises(ValueError, match=r"\[2\] of 2"):
        MeasuredLayers(network(), [2])
    with pytest.raises(ValueError, match="no BatchNorm layer"):
        MeasuredLayers(nn.Sequential(nn.Conv2d(3, 3, 1)))
