"""Optimizers and schedules."""

import math

import pytest
import torch
from torch.nn import functional as F

from fieldguide.network.cnn import CNN
from fieldguide.training.optimizers import make_optimizer, make_schedule

# Learning rates at which each optimizer memorises eight images.
RATES = {"adam": 0.01, "adamw": 0.01, "muon": 0.01, "nadam": 0.01, "rmsprop": 0.002, "sgd": 0.05}
SCHEDULES = ["one_cycle", "cosine", "constant"]


@pytest.fixture
def net_of(tiny_params):
    def make(**changes):
        torch.manual_seed(0)
        params = tiny_params(model={"dropout": 0.0, "num_neurons_dense": 16} | changes)
        return CNN(params.model, image_size=16, num_classes=4)

    return make


@pytest.mark.parametrize("optimizer", RATES)
def test_weight_decay_applies_only_to_weights(optimizer, net_of, tiny_params):
    net = net_of()
    made = make_optimizer(net, tiny_params(optimizer=optimizer, weight_decay=0.25).train)
    decay = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    found = {name: decay[id(p)] for name, p in net.named_parameters()}
    weights = {
        "features.conv1.conv.weight",
        "features.conv2.conv.weight",
        "classifier.dense.weight",
        "classifier.output.weight",
    }
    assert found == {name: 0.25 if name in weights else 0.0 for name in found}
    assert {"features.conv1.norm.weight", "classifier.dense.bias"} <= set(found)
    assert len(decay) == len(list(net.parameters()))


@pytest.mark.parametrize("optimizer", RATES)
def test_the_optimizer_is_that_of_params(optimizer, net_of, tiny_params):
    made = make_optimizer(net_of(), tiny_params(optimizer=optimizer, learning_rate=0.125).train)
    assert type(made).__name__.lower() == optimizer
    assert all(group["lr"] == 0.125 for group in made.param_groups)
    if optimizer == "sgd":
        assert all(g["momentum"] == 0.9 and g["nesterov"] for g in made.param_groups)


def test_frozen_parameters_are_left_out(net_of, tiny_params):
    net = net_of()
    net.features.requires_grad_(False)
    made = make_optimizer(net, tiny_params().train)
    assert sum(len(group["params"]) for group in made.param_groups) == 4


def rates_of(schedule, steps, tiny_params, peak=0.5, **changes):
    """Return the learning rate of each step, and the one after the last step."""
    parameter = torch.nn.Parameter(torch.zeros(1, 1))
    optimizer = torch.optim.SGD([parameter], peak)
    params = tiny_params(schedule=schedule, learning_rate=peak, **changes).train
    made = make_schedule(optimizer, params, steps=steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return [*rates, optimizer.param_groups[0]["lr"]]


def test_one_cycle_by_hand(tiny_params):
    # From peak / 25 up to the peak at step 0.3 * 10 - 1 = 2, down to peak / 25 / 10,000 after the
    # last of 9 steps.
    rates = rates_of("one_cycle", 9, tiny_params)
    assert rates[0] == pytest.approx(0.02)
    assert rates[1] == pytest.approx((0.02 + 0.5) / 2)  # half of a half cosine
    assert rates[2] == pytest.approx(0.5)
    assert rates[9] == pytest.approx(0.02 / 1e4)
    down = [2e-6 + (0.5 - 2e-6) * (1 + math.cos(math.pi * k / 7)) / 2 for k in range(8)]
    assert rates[2:10] == pytest.approx(down)
    assert max(rates) == rates[2]


def test_cosine_by_hand(tiny_params):
    rates = rates_of("cosine", 8, tiny_params, warmup=0.0)
    assert rates == pytest.approx([0.25 * (1 + math.cos(math.pi * k / 8)) for k in range(9)])
    assert rates[0] == 0.5
    assert rates[4] == pytest.approx(0.25)
    assert rates[8] == pytest.approx(0, abs=1e-9)


def test_cosine_with_warm_up_by_hand(tiny_params):
    # Two of 8 steps rise, by thirds of the peak; six steps fall.
    rates = rates_of("cosine", 8, tiny_params, warmup=0.25)
    falling = [0.25 * (1 + math.cos(math.pi * k / 6)) for k in range(7)]
    assert rates == pytest.approx([0.5 / 3, 1 / 3, *falling], abs=1e-9)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.9])
def test_one_cycle_has_its_peak_at_the_end_of_the_warm_up(warmup, tiny_params):
    rates = rates_of("one_cycle", 99, tiny_params, warmup=warmup)
    assert abs(rates.index(max(rates)) - warmup * 100) <= 1
    assert max(rates) == pytest.approx(0.5, rel=1e-3)


def test_a_constant_schedule_does_not_change_the_rate(tiny_params):
    assert rates_of("constant", 8, tiny_params) == [0.5] * 9


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 0.9])
def test_short_trainings_have_a_schedule(schedule, warmup, tiny_params):
    for steps in (1, 2, 3, 4, 9, 19, 49, 99):  # some with a warm-up of one step
        rates = rates_of(schedule, steps, tiny_params, warmup=warmup)
        assert all(0 <= rate <= 0.5 for rate in rates)
        assert max(rates) > 0


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", RATES)
def test_each_optimizer_and_schedule_memorises_eight_images(
    optimizer, schedule, net_of, tiny_params
):
    net, steps = net_of(), 120
    params = tiny_params(
        optimizer=optimizer, schedule=schedule, learning_rate=RATES[optimizer], weight_decay=0.0
    ).train
    made = make_optimizer(net, params)
    plan = make_schedule(made, params, steps=steps)
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 4
    for _ in range(steps):
        made.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        made.step()
        plan.step()
    assert loss.item() < 0.02


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "mish"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_each_activation_memorises_eight_images(activation, batch_norm, net_of, tiny_params):
    net = net_of(activation=activation, batch_norm=batch_norm)
    made = make_optimizer(net, tiny_params(learning_rate=0.01, weight_decay=0.0).train)
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.arange(8) % 4
    for _ in range(100):
        made.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        made.step()
    assert loss.item() < 0.02
