"""Muon against the singular value decomposition, and against AdamW."""

import copy
import math

import pytest
import torch
from torch import nn

from fieldguide.training.muon import Muon, is_matrix, orthogonalised


def net_of() -> nn.Sequential:
    """Return a convolution, a depthwise convolution, a norm and an output layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.BatchNorm2d(16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


def train(net, optimizer, steps, start=0):
    for step in range(start, start + steps):
        torch.manual_seed(step)
        images, labels = torch.randn(8, 3, 12, 12), torch.randint(4, (8,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()


@pytest.mark.parametrize("shape", [(16, 27), (64, 288), (32, 8)])
def test_every_singular_value_becomes_about_one(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    assert (orthogonalised(matrix) - u @ vt).abs().max() < 0.02
    assert torch.linalg.svdvals(orthogonalised(matrix)) == pytest.approx(1.0, abs=0.05)


def test_two_steps_by_hand():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 3, 3, 3))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.5)
    gradients = torch.randn(2, 8, 3, 3, 3)
    expected, momentum = weight.detach().reshape(8, 27).clone(), torch.zeros(8, 27)
    for gradient in gradients.clone():
        weight.grad = gradient
        optimizer.step()
    for gradient in gradients.reshape(2, 8, 27):
        momentum = 0.9 * momentum + 0.1 * gradient
        u, _, vt = torch.linalg.svd(0.1 * gradient + 0.9 * momentum, full_matrices=False)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 0.2 * math.sqrt(27) * u @ vt
    assert (weight.detach().reshape(8, 27) - expected).abs().max() < 0.004  # steps of up to 0.07


def test_adamw_updates_what_is_not_a_matrix():
    ours, theirs = net_of(), net_of()
    muon = Muon(ours.parameters(), lr=0.01, weight_decay=0.1)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1)
    train(ours, muon, steps=1)
    train(theirs, adamw, steps=1)
    same = {
        name: torch.equal(a, b)
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True)
    }
    assert same == {name: name not in {"0.weight", "5.weight"} for name in same}
    assert [is_matrix(p) for p in ours.parameters() if p.ndim > 1] == [True, False, True]


def test_a_loaded_state_continues_with_the_same_bytes():
    whole, cut = net_of(), net_of()
    train(whole, Muon(whole.parameters(), lr=0.01), steps=5)
    first = Muon(cut.parameters(), lr=0.01)
    train(cut, first, steps=2)
    later = Muon(cut.parameters(), lr=0.01)
    later.load_state_dict(copy.deepcopy(first.state_dict()))
    train(cut, later, steps=3, start=2)
    assert all(map(torch.equal, whole.parameters(), cut.parameters()))


def test_frozen_weights_stay():
    net = net_of()
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    train(net, Muon(net.parameters(), lr=0.01, weight_decay=0.5), steps=2)
    assert torch.equal(net[0].weight, before)
