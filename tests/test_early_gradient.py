"""A loss that remembers its gradient: the same sum of gradients, and activations that are free."""

import gc
import weakref

import pytest
import torch
from torch import nn

from lib.training.early_gradient import with_gradient


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def gradients(network):
    found = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    return found


def test_two_passes_have_the_gradient_of_their_sum(network):
    x, y = torch.rand(5, 3), torch.rand(7, 3)
    (network(x).square().mean() + network(y).sum()).backward()
    expected = gradients(network)
    first = network(x).square().mean()
    early = with_gradient(first, network.parameters())
    assert early.item() == first.item()
    (3 * (early + network(y).sum()) / 3).backward()  # any factor acts on both
    torch.testing.assert_close(gradients(network), expected)


def test_activations_are_free_before_the_second_pass(network):
    kept = []
    network[1].register_forward_hook(lambda *call: kept.append(weakref.ref(call[2])))
    loss = network(torch.rand(5, 3)).sum()
    gc.collect()
    assert kept[0]() is not None
    early = with_gradient(loss, network.parameters())
    gc.collect()
    assert kept[0]() is None
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    early.backward()


def test_frozen_and_unused_parameters_get_no_gradient(network):
    network[0].requires_grad_(False)
    unused = nn.Parameter(torch.ones(2))
    loss = network(torch.rand(5, 3)).sum()
    with_gradient(loss, [*network.parameters(), unused]).backward()
    assert network[0].weight.grad is None
    assert unused.grad is None
    assert network[2].bias.grad.item() == 5


def test_without_gradient_the_loss_comes_back(network):
    with torch.no_grad():
        loss = network(torch.rand(5, 3)).sum()
        assert with_gradient(loss, network.parameters()) is loss
    constant = torch.tensor(1.0)
    assert with_gradient(constant, network.parameters()) is constant


def test_in_float16_the_loss_waits_for_the_loop_s_factor(network):
    loss = network(torch.rand(2, 3)).square().mean()
    with torch.autocast("cpu", torch.float16):
        assert with_gradient(loss, network.parameters()) is loss
    with torch.autocast("cpu", torch.bfloat16):
        assert with_gradient(loss, network.parameters()) is not loss
