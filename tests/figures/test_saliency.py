"""Guided backprop, compared with Captum's, and the photo that excites a neuron most."""

import copy
from functools import partial

import numpy as np
import pytest
import timm
import torch
from captum.attr import GuidedBackprop, NeuronGuidedBackprop
from torch import nn

from fieldguide.figures.drawn_layers import guided_layer
from fieldguide.figures.saliency import (
    guided_figure,
    guided_gradient,
    network_input,
    pick_neurons,
)
from fieldguide.network.bundle import Bundle
from fieldguide.network.cnn import CNN
from fieldguide.network.preprocessing import Preprocessing


@pytest.fixture
def bundle_of(make_params, store):
    def make(**changes):
        settings = {
            "conv_layers": 3,
            "first_layer_filters": 4,
            "num_neurons_dense": 8,
            "whitening": False,
        }
        settings |= changes
        model = make_params(data={"image_size": 16}, model=settings).model
        torch.manual_seed(0)
        return Bundle(
            net=CNN(model, image_size=16, num_classes=3).eval(),
            architecture=model.architecture,
            classes=store.classes,
            image_size=16,
            resize="crop",
            preprocessing=Preprocessing(16, "bilinear", store.mean, store.std),
            val_acc=0.5,
            started_from="none",
        )

    return make


def hooks_of(net):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [hook for m in net.modules() for kind in kinds for hook in getattr(m, kind)]


def neurons_of(bundle, store, count=8, block="conv3", seed=0):
    rng = np.random.default_rng(seed)
    layer = bundle.net.blocks[block].activation
    return pick_neurons(bundle, store.split("test"), layer=layer, count=count, rng=rng)


def guided_by_captum(net, image, *, layer, place):
    """The same by Captum; without in-place activations, which its hooks do not allow."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    image = image.clone().requires_grad_()
    if layer:
        explain = partial(
            NeuronGuidedBackprop(net, net.get_submodule(layer)).attribute, image, place
        )
    else:
        explain = partial(GuidedBackprop(net).attribute, image, target=place)
    with pytest.warns(UserWarning, match="Setting backward hooks on ReLU"):
        return explain()[0].detach()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_norm": False},
        {"norm_after_activation": True},
        {"residual_units": 1, "pooling": "average"},
    ],
    ids=str,
)
@pytest.mark.parametrize("block", ["conv1", "conv2", "conv3"])
def test_neurons_of_the_cnn_with_relu_equal_captums(block, changes, bundle_of, store):
    bundle = bundle_of(**changes)
    neurons = neurons_of(bundle, store, block=block)
    assert len(neurons) == 8
    for neuron in neurons:
        image = network_input(bundle, store.split("test"), neuron.photo)
        layer = bundle.net.blocks[block].activation
        ours = guided_gradient(bundle.net, image, layer=layer, place=neuron.place)
        theirs = guided_by_captum(
            bundle.net, image, layer=f"features.{block}.activation", place=neuron.place
        )
        assert ours.shape == (3, 16, 16)
        assert theirs.abs().max() > 0
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["test_resnet", "resnet10t", "tf_efficientnet_lite0"])
def test_neurons_and_scores_of_timm_networks_equal_captums(name):
    """Captum knows no ReLU6, so it gets ReLU, which is the same below 6."""
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=4).eval()
    unbounded = copy.deepcopy(net)
    for path, module in net.named_modules():
        if isinstance(module, nn.ReLU6):
            unbounded.set_submodule(path, nn.ReLU())
    in_place = [getattr(module, "inplace", None) for module in net.modules()]
    image = torch.randn(1, 3, 64, 64) / 100
    with torch.no_grad():
        assert torch.equal(net(image), unbounded(image))  # no value reaches 6

    layer, module = guided_layer(net)
    outputs = []
    with torch.no_grad(), module.register_forward_hook(lambda *args: outputs.append(args[2])):
        net(image)
    for channel in outputs[0].amax((0, 2, 3)).argsort(descending=True)[:3].tolist():
        place = (channel, 1, 1)
        found = guided_gradient(net, image, layer=module, place=place)
        expected = guided_by_captum(unbounded, image, layer=layer, place=place)
        assert torch.equal(found, expected)
    for label in range(4):
        found = guided_gradient(net, image, layer=net, place=(label,))
        expected = guided_by_captum(unbounded, image, layer=None, place=label)
        assert found.abs().max() > 0
        assert torch.equal(found, expected)
    assert [getattr(module, "inplace", None) for module in net.modules()] == in_place
    assert hooks_of(net) == []


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "mish"])
def test_gradient_is_not_zero_and_no_hook_remains(activation, bundle_of, store):
    bundle = bundle_of(activation=activation)
    for neuron in neurons_of(bundle, store):
        image = network_input(bundle, store.split("test"), neuron.photo)
        layer = bundle.net.blocks["conv3"].activation
        gradient = guided_gradient(bundle.net, image, layer=layer, place=neuron.place)
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0
        assert not image.requires_grad
    assert hooks_of(bundle.net) == []
    assert all(p.grad is None for p in bundle.net.parameters())


@pytest.mark.parametrize("activation", ["gelu", "silu", "mish"])
def test_rule_by_hand_on_two_layers(activation, make_params):
    # y = f(w2 · f(w1 x)), one pixel: dy/dx = max(0, f'(b)) w2 -> clipped, times f'(a), times w1.
    kinds = {"gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish}
    first, second = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 2.0, 0.5], [-1.0, 1.0, 1.0]])[:, :, None, None])
        second.weight.copy_(torch.tensor([[0.75, -0.5]])[:, :, None, None])
    act = kinds[activation]()
    net = nn.Sequential(first, kinds[activation](), second, act)
    image = torch.tensor([0.3, 0.2, -0.4])[None, :, None, None]

    def slope(value):
        value = torch.tensor(float(value), dtype=torch.float64)
        step = 1e-6
        function = getattr(nn.functional, activation)
        return float((function(value + step) - function(value - step)) / (2 * step))

    a = [0.3 + 0.4 - 0.2, -0.3 + 0.2 - 0.4]  # 0.5 and -0.5
    hidden = getattr(nn.functional, activation)(torch.tensor(a))
    b = 0.75 * hidden[0] - 0.5 * hidden[1]
    top = max(0.0, slope(b))
    middle = [max(0.0, 0.75 * top * slope(a[0])), max(0.0, -0.5 * top * slope(a[1]))]
    expected = [
        middle[0] * one + middle[1] * two
        for one, two in zip([1.0, 2.0, 0.5], [-1.0, 1.0, 1.0], strict=True)
    ]
    found = guided_gradient(net, image, layer=act, place=(0, 0, 0))
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-4)
    assert hooks_of(net) == []


def test_hooks_are_removed_after_an_error(bundle_of):
    bundle = bundle_of(activation="gelu")
    layer = bundle.net.blocks["conv3"].activation
    with pytest.raises(RuntimeError, match="channels"):
        guided_gradient(bundle.net, torch.zeros(1, 1, 16, 16), layer=layer, place=(0, 0, 0))
    with pytest.raises(IndexError, match="out of bounds"):
        guided_gradient(bundle.net, torch.zeros(1, 3, 16, 16), layer=layer, place=(99, 0, 0))
    assert hooks_of(bundle.net) == []


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@torch.no_grad()
def test_picked_neurons_name_the_photo_that_excites_them_most(activation, bundle_of, store):
    bundle, test = bundle_of(activation=activation), store.split("test")
    net, neurons = bundle.net, neurons_of(bundle, store, count=12)
    excited = []
    for row in range(len(test)):
        after = network_input(bundle, test, row)
        for name, block in net.blocks.items():
            after = block.activation(block.norm(block.conv(after)))
            after = after if name == "conv3" else block.pool(after)
        excited.append(after[0].numpy())
    excited = np.stack(excited)  # (N, F, h, w)
    assert len(neurons) == 12
    for neuron in neurons:
        of_photos = excited[:, *neuron.place]
        assert of_photos[neuron.photo] == pytest.approx(of_photos.max(), rel=1e-4)
        assert of_photos[neuron.photo] > 0
    assert len({neuron.place for neuron in neurons}) == 12
    assert hooks_of(net) == []


def test_neurons_depend_on_the_generator_alone(bundle_of, store):
    bundle = bundle_of()
    assert neurons_of(bundle, store, seed=0) == neurons_of(bundle, store, seed=0)
    assert neurons_of(bundle, store, seed=0) != neurons_of(bundle, store, seed=1)


def test_no_more_neurons_than_there_are(bundle_of, store):
    bundle = bundle_of(first_layer_filters=1, filter_org=1.0)  # 1 channel of 4 × 4
    neurons = neurons_of(bundle, store, count=50)
    assert 1 <= len(neurons) <= 16


def test_the_figure_says_that_a_network_is_dead(bundle_of, store):
    bundle = bundle_of(batch_norm=False)
    with torch.no_grad():
        bundle.net.blocks["conv3"].conv.weight.zero_()
        bundle.net.blocks["conv3"].conv.bias.fill_(-1)
    assert neurons_of(bundle, store) == []
    layer = guided_layer(bundle.net)
    rng = np.random.default_rng(0)
    figure = guided_figure(bundle, store.split("test"), layer=layer, count=4, rng=rng)
    assert any("the network is dead" in text.get_text() for text in figure.texts)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_figure_pairs_each_neuron_with_its_photo(count, bundle_of, store):
    bundle, test = bundle_of(), store.split("test")
    layer, rng = guided_layer(bundle.net), np.random.default_rng(3)
    figure = guided_figure(bundle, test, layer=layer, count=count, rng=rng)
    neurons = neurons_of(bundle, store, count=count, seed=3)
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(pictures) == 2 * count
    for neuron, photo, saliency in zip(neurons, pictures[::2], pictures[1::2], strict=True):
        assert np.array_equal(photo, test.images(np.array([neuron.photo]))[0])
        assert saliency.shape == (16, 16, 3)
        assert saliency.min() >= 0
        assert saliency.max() <= 1


def test_network_input_is_the_normalised_photo(bundle_of, store):
    bundle, test = bundle_of(), store.split("test")
    pixels = test.images(np.array([4]))[0] / 255
    expected = ((pixels - np.array(store.mean)) / np.array(store.std)).transpose(2, 0, 1)
    np.testing.assert_allclose(network_input(bundle, test, 4)[0], expected, atol=1e-5)


def test_rule_for_relu6_by_hand():
    """Scores of 3 and -2 times ReLU6(x): only the first has a gradient, where x is above 0."""
    net = nn.Sequential(nn.ReLU6(inplace=True), nn.Flatten(), nn.Linear(3, 2, bias=False))
    net[2].weight.data = torch.tensor([[3.0, 3.0, 3.0], [-2.0, -2.0, -2.0]])
    image = torch.tensor([-1.0, 2.0, 7.0]).reshape(1, 3, 1, 1)
    first = guided_gradient(net, image, layer=net, place=(0,))
    assert first.flatten().tolist() == [0.0, 3.0, 3.0]
    second = guided_gradient(net, image, layer=net, place=(1,))
    assert second.flatten().tolist() == [0.0, 0.0, 0.0]
    assert hooks_of(net) == []


def test_relu6_is_treated_as_if_it_had_no_bound(store, bundle_of):
    """Every photo drives every neuron above 6; ReLU6 and ReLU give the same figure."""
    bundle, test = bundle_of(), store.split("test")
    block = bundle.net.features.conv3
    with torch.no_grad():
        block.norm.bias.fill_(50.0)

    def drawn(activation):
        block.activation = activation
        rng = np.random.default_rng(0)
        neurons = pick_neurons(bundle, test, layer=activation, count=8, rng=rng)
        images = [network_input(bundle, test, neuron.photo) for neuron in neurons]
        gradients = [
            guided_gradient(bundle.net, image, layer=activation, place=neuron.place)
            for image, neuron in zip(images, neurons, strict=True)
        ]
        with torch.no_grad():
            assert bundle.net.features(torch.cat(images)).min() > 5.999
        return neurons, torch.stack(gradients)

    bounded, unbounded = drawn(nn.ReLU6()), drawn(nn.ReLU())
    assert bounded[0] == unbounded[0]
    torch.testing.assert_close(bounded[1], unbounded[1])
    assert bounded[1].abs().max() > 0
